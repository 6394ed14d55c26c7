"""Calls that are sent again with their request id, and calls with a deadline."""

import asyncio

import httpx
import pytest

from contender.contracts.problems import TYPE_PREFIX
from services.ab_router.deduplication import Deduplication
from services.ab_router.errors import RequestInFlightError
from services.ab_router.request_ids import IdentifiedCall
from services.ab_router.stored_answers import AnswerStoreError, AnswerStoreTimeoutError, InMemoryAnswerStore

PREDICT = "/v1/models/late/predict"
BATCH = f"{PREDICT}/batch"
ROW = {"unit": "user-1", "entities": {"origin": "EWR"}, "inputs": {"distance": 700.0}}
CALL = {**ROW, "request_id": "r1"}
REPLAYED = "idempotency-replayed"


def rows_on_record(router) -> int:
    return sum(len(block) for _, _, frame in router.frames() for block in frame.blocks)


def assert_problem(answer: httpx.Response, status: int, slug: str, *fields: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, TYPE_PREFIX + slug)
    assert [error["field"] for error in answer.json().get("errors", [])] == list(fields)


async def test_the_same_call_gets_the_same_answer_and_is_recorded_once(client, router):
    first = await client.post(PREDICT, json=CALL)
    assert (first.status_code, REPLAYED in first.headers) == (200, False)
    for body in (CALL, dict(reversed(CALL.items()))):
        again = await client.post(PREDICT, json=body)
        assert (again.status_code, again.headers[REPLAYED]) == (200, "true")
        assert again.content == first.content
    block, at = router.kept(first.json()["prediction_id"])
    assert (rows_on_record(router), block.request_id[at]) == (1, "r1")
    assert "deduplicated" not in first.json()


async def test_a_batch_is_repeated_as_a_whole_with_its_refused_rows(client, router):
    body = {"rows": [ROW, {**ROW, "inputs": {}}, *[ROW] * 3], "request_id": "b1"}
    first, again = [await client.post(BATCH, json=body) for _ in range(2)]
    assert (first.status_code, again.headers[REPLAYED]) == (200, "true")
    assert first.content == again.content
    assert rows_on_record(router) == 4
    block, _ = router.kept(first.json()["predictions"][0]["prediction_id"])
    assert block.request_id == ["b1"] * 4


async def test_a_call_without_a_request_id_is_another_call_each_time(client, router):
    for body in (ROW, {**ROW, "request_id": ""}):
        ids = {(await client.post(PREDICT, json=body)).json()["prediction_id"] for _ in range(2)}
        assert len(ids) == 2
    assert all(block.request_id == [] for _, _, frame in router.frames() for block in frame.blocks)


async def test_the_assignment_is_the_first_one_whatever_happens_meanwhile(client, router):
    first = await client.post(PREDICT, json=CALL)
    router.inference.failing = {"plain", "streaming"}
    again = await client.post(PREDICT, json=CALL)
    assert again.content == first.content


@pytest.mark.parametrize(
    "changes",
    [{"unit": "user-2"}, {"inputs": {"distance": 701.0}}, {"return_inputs": True}, {"context": {"plan": "pro"}}],
)
async def test_another_call_with_the_same_id_is_refused(client, router, changes):
    await client.post(PREDICT, json=CALL)
    assert_problem(await client.post(PREDICT, json={**CALL, **changes}), 422, "request-id-reused", "request_id")
    assert rows_on_record(router) == 1


async def test_a_batch_and_a_call_of_one_row_are_different_calls(client):
    await client.post(PREDICT, json=CALL)
    answer = await client.post(BATCH, json={"rows": [ROW], "request_id": "r1"})
    assert_problem(answer, 422, "request-id-reused", "request_id")


async def test_ids_are_of_one_model(client):
    other = {"unit": "user-1", "inputs": {"seats": 4}, "request_id": "r1"}
    for path, body in ((PREDICT, CALL), ("/v1/models/delay/predict", other)):
        answer = await client.post(path, json=body)
        assert (answer.status_code, REPLAYED in answer.headers) == (200, False)


async def test_a_row_of_a_batch_has_no_request_id_of_its_own(client, router):
    for batch in ({}, {"request_id": "b1"}):
        body = {"rows": [ROW, CALL, {**ROW, "request_id": "r3"}], **batch}
        answer = await client.post(BATCH, json=body)
        assert_problem(answer, 422, "invalid-field", "rows[1].request_id", "rows[2].request_id")
    assert router.records() == []


async def test_a_long_request_id_is_refused(client):
    assert (await client.post(PREDICT, json={**CALL, "request_id": "ä" * 200})).status_code == 200
    answer = await client.post(PREDICT, json={**CALL, "request_id": "ä" * 201})
    assert_problem(answer, 422, "invalid-field", "request_id")


async def test_while_the_first_call_is_in_flight_another_is_told_to_wait(client, router):
    router.inference.answering.clear()
    first = asyncio.create_task(client.post(PREDICT, json=CALL))
    await router.inference.reached.wait()
    answer = await client.post(PREDICT, json=CALL)
    assert_problem(answer, 409, "request-in-flight")
    assert answer.headers["retry-after"] == "1"
    assert_problem(await client.post(PREDICT, json={**CALL, "unit": "x"}), 422, "request-id-reused", "request_id")
    router.inference.answering.set()
    assert (await first).status_code == 200
    assert (await client.post(PREDICT, json=CALL)).content == (await first).content
    assert rows_on_record(router) == 1


async def test_a_call_that_is_refused_or_fails_leaves_its_id_free(client, router):
    assert (await client.post(PREDICT, json={**CALL, "inputs": {}})).status_code == 422
    router.inference.failing = {"plain"}
    assert (await client.post(PREDICT, json=CALL)).status_code == 503
    router.inference.failing = set()
    answer = await client.post(PREDICT, json=CALL)
    assert (answer.status_code, REPLAYED in answer.headers) == (200, False)
    refused = {"rows": [{**ROW, "inputs": {}}], "request_id": "b1"}
    assert [(await client.post(BATCH, json=refused)).status_code for _ in range(2)] == [422, 422]


@pytest.mark.parametrize(("failure", "asked"), [(AnswerStoreTimeoutError, 1), (AnswerStoreError, 3)])
async def test_with_the_store_away_calls_are_answered_and_say_so(client, router, failure, asked):
    router.answers.failure = failure
    for _ in range(10):
        answer = await client.post(PREDICT, json=CALL)
        assert (answer.status_code, answer.json()["deduplicated"]) == (200, False)
    batch = (await client.post(BATCH, json={"rows": [ROW, {**ROW, "inputs": {}}], "request_id": "b"})).json()
    assert (batch["predictions"][0]["deduplicated"], "error" in batch["predictions"][1]) == (False, True)
    assert router.answers.asked == asked
    assert rows_on_record(router) == 11


async def test_a_store_that_goes_away_before_the_answer_is_kept_is_said_too(client, router):
    router.inference.answering.clear()
    call = asyncio.create_task(client.post(PREDICT, json=CALL))
    await router.inference.reached.wait()
    router.answers.failure = AnswerStoreTimeoutError
    router.inference.answering.set()
    assert (await call).json()["deduplicated"] is False


async def test_a_call_whose_marker_has_expired_is_not_deduplicated(client, router):
    router.inference.answering.clear()
    call = asyncio.create_task(client.post(PREDICT, json=CALL))
    await router.inference.reached.wait()
    router.answers._entries.clear()
    router.inference.answering.set()
    assert (await call).json()["deduplicated"] is False


async def test_a_claim_whose_answer_was_lost_and_that_the_client_repeated_is_our_own(client, router):
    class Repeating(InMemoryAnswerStore):
        """Its client loses the answer of each call, and sends it again."""

        async def claim(self, key: bytes, marker: bytes, expires_s: float) -> bytes | None:
            await super().claim(key, marker, expires_s)
            return await super().claim(key, marker, expires_s)

        async def replace(self, key: bytes, marker: bytes, entry: bytes, expires_s: float) -> bool:
            await super().replace(key, marker, entry, expires_s)
            return await super().replace(key, marker, entry, expires_s)

    async def work() -> str:
        return "answer"

    deduplication = Deduplication(Repeating(), router.settings)
    call = IdentifiedCall("", "m", "r", b"payload")
    first, again = [
        await deduplication.answer(call, work, lambda answer, is_kept: f"{answer} {is_kept}".encode()) for _ in range(2)
    ]
    assert (first.body, first.is_replayed) == (b"answer True", False)
    assert (again.body, again.is_replayed) == (b"answer True", True)


class CrowdedStore(InMemoryAnswerStore):
    """Refuses a call for which it has no connection, as the client of Redis does; or it hangs."""

    def __init__(self, *, hangs: bool) -> None:
        super().__init__()
        self.hangs = hangs
        self.free = 100
        self.asked = 0

    async def claim(self, key: bytes, marker: bytes, expires_s: float) -> bytes | None:
        self.asked += 1
        if not self.free:
            raise AnswerStoreError("too many connections")
        self.free -= 1
        await asyncio.sleep(0)
        self.free += 1
        if self.hangs:
            raise AnswerStoreTimeoutError("away")
        return await super().claim(key, marker, expires_s)


@pytest.mark.parametrize("hangs", [False, True])
async def test_more_calls_than_the_client_has_connections_wait_for_one(router, hangs):
    async def work() -> str:
        return "answer"

    store = CrowdedStore(hangs=hangs)
    deduplication = Deduplication(store, router.settings)
    calls = [IdentifiedCall("", "m", str(number), b"payload") for number in range(300)]
    answers = await asyncio.gather(
        *(deduplication.answer(call, work, lambda _, is_kept: str(is_kept).encode()) for call in calls)
    )
    assert {answer.body for answer in answers} == {str(not hangs).encode()}
    assert store.asked < 100 if hangs else store.asked == 300


# Deadlines


async def test_a_store_that_hangs_costs_one_call_though_callers_leave_before_its_timeout(client, router):
    timeout, has_ended = asyncio.Event(), asyncio.Event()

    async def claim(*_: object) -> None:
        try:
            await timeout.wait()
            raise AnswerStoreTimeoutError("away")
        finally:
            has_ended.set()

    router.answers.claim = claim
    assert_problem(await client.post(PREDICT, json=CALL, headers={"Deadline-Ms": "40"}), 503, "overloaded")
    timeout.set()
    await has_ended.wait()
    timeout.clear()
    answer = await client.post(PREDICT, json=CALL, headers={"Deadline-Ms": "2000"})
    assert (answer.status_code, answer.json()["deduplicated"]) == (200, False)


@pytest.mark.parametrize("path", [PREDICT, BATCH])
async def test_a_call_is_refused_within_its_callers_deadline(client, router, path):
    router.inference.answering.clear()
    body = ROW if path == PREDICT else {"rows": [ROW]}
    other = asyncio.create_task(client.post(PREDICT, json=ROW))
    began = asyncio.get_running_loop().time()
    answer = await client.post(path, json=body, headers={"Deadline-Ms": "80"})
    assert_problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert "80 ms of Deadline-Ms" in answer.json()["detail"]
    assert 0.05 < asyncio.get_running_loop().time() - began < 0.5
    router.inference.answering.set()
    assert (await other).status_code == 200
    assert rows_on_record(router) == 1


async def test_an_answer_in_time_is_the_usual_one(client):
    for deadline in ("5000", "999999999"):
        assert (await client.post(PREDICT, json=ROW, headers={"Deadline-Ms": deadline})).status_code == 200


@pytest.mark.parametrize("deadline", ["0", "-5", "soon", "1e99", "5.5", "", "nan", "9" * 400, "²", "٣", "+5", "1 000"])
async def test_a_deadline_that_is_no_number_of_milliseconds_is_refused(client, router, deadline):
    answer = await client.post(PREDICT, json=ROW, headers={"Deadline-Ms": deadline.encode()})
    assert_problem(answer, 422, "invalid-field", "Deadline-Ms")
    assert len(answer.content) < 600
    assert router.records() == []


async def test_an_identified_call_goes_on_after_its_callers_deadline_for_the_call_that_follows(client, router):
    router.inference.answering.clear()
    assert (await client.post(PREDICT, json=CALL, headers={"Deadline-Ms": "40"})).status_code == 503
    assert_problem(await client.post(PREDICT, json=CALL), 409, "request-in-flight")
    router.inference.answering.set()
    async with asyncio.timeout(5):
        while (answer := await client.post(PREDICT, json=CALL)).status_code == 409:
            await asyncio.sleep(0)
    assert (answer.status_code, answer.headers[REPLAYED]) == (200, "true")
    assert rows_on_record(router) == 1


async def test_work_whose_caller_has_left_ends_before_the_router_does(router):
    may_end = asyncio.Event()
    call = IdentifiedCall("", "m", "r", b"payload")

    async def work() -> str:
        await may_end.wait()
        return "answer"

    async with Deduplication(router.answers, router.settings) as deduplication:
        caller = asyncio.create_task(deduplication.answer(call, work, lambda answer, _: answer.encode()))
        await asyncio.sleep(0.01)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        with pytest.raises(RequestInFlightError):
            await deduplication.answer(call, work, lambda answer, _: answer.encode())
        may_end.set()
    answer = await deduplication.answer(call, work, lambda answer, _: answer.encode())
    assert (answer.body, answer.is_replayed) == (b"answer", True)
