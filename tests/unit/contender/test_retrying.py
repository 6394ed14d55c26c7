"""Calls are sent again where that changes nothing twice, by Client and AsyncClient alike."""

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from contender import AsyncClient, Client, RefusedError, UnreachableError
from contender.contracts.ab_router import PREDICT
from contender.contracts.feedback_service import GET_RESULTS

PREDICTED = (200, {}, {**PREDICT.answer_example, "experiment": None})
BUSY = (503, {"retry-after": "2"}, {"type": "/problems/overloaded", "detail": "more calls wait than can be answered"})
SILENT = httpx.ConnectError("nobody listens")


class Service:
    """Gives its answers in turn, the last one again and again; a pause moves its clock, and so does an answer."""

    def __init__(self, *answers: Any, takes_s: float = 0.0) -> None:
        self.answers = list(answers)
        self.takes_s = takes_s
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        self.now = 100.0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.now += self.takes_s
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer
        return httpx.Response(status, headers=headers, json=body)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def pause_later(self, seconds: float) -> None:
        self.pause(seconds)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]

    @property
    def timeouts(self) -> list[float]:
        return [request.extensions["timeout"]["read"] for request in self.requests]


Make = Callable[..., Callable[[Callable[[Any], Any]], Any]]


@pytest.fixture(params=[Client, AsyncClient])
def using(request) -> Make:
    """Makes a client of a service, and returns what a function of the client does."""

    def make(service: Service, **options: Any) -> Callable[[Callable[[Any], Any]], Any]:
        client = request.param("http://127.0.0.1:8400", transport=httpx.MockTransport(service.answer), **options)
        transport = client._transport
        transport.sleep = service.pause if request.param is Client else service.pause_later
        transport.retrying.clock, transport.retrying.draw = lambda: service.now, lambda: 1.0

        async def awaited(act: Callable[[Any], Any]) -> Any:
            result = act(client)
            return await result if inspect.isawaitable(result) else result

        return lambda act: asyncio.run(awaited(act))

    return make


def test_a_prediction_is_made_again_with_the_id_that_it_was_given(using):
    service = Service(SILENT, BUSY, PREDICTED)
    do = using(service, retries=2)
    assert do(lambda client: client.predict("churn", unit="u")).prediction_id == "p1-00"
    first, *others = service.bodies
    assert len(first.pop("request_id")) == 32
    assert first == {"unit": "u", "entities": {}, "inputs": {}, "context": {}}
    assert len(others) == 2
    assert len({request.content for request in service.requests}) == 1
    assert service.pauses == [0.1, 2.2]
    do(lambda client: client.predict("churn", unit="u"))
    assert service.bodies[-1]["request_id"] != service.bodies[0]["request_id"]


def test_a_batch_is_made_again_with_one_id(using):
    service = Service(BUSY, (200, {}, {"predictions": [PREDICTED[2]]}))
    (answer,) = using(service, retries=1)(lambda client: client.predict_batch("churn", [{"unit": "u"}]))
    assert answer.prediction_id == "p1-00"
    first, second = service.bodies
    assert first == second
    assert len(first["request_id"]) == 32


def test_a_callers_own_id_is_kept(using):
    service = Service(BUSY, PREDICTED)
    using(service, retries=1)(lambda client: client.predict("churn", unit="u", request_id="order-17"))
    assert [body["request_id"] for body in service.bodies] == ["order-17", "order-17"]


def test_nothing_is_made_again_and_nothing_looked_up_unless_it_is_asked_for(using):
    for answer, error in ((BUSY, RefusedError), (SILENT, UnreachableError)):
        service = Service(answer)
        with pytest.raises(error):
            using(service)(lambda client: client.predict("churn", unit="u"))
        (body,) = service.bodies
        assert "request_id" not in body


@pytest.mark.parametrize(
    "refusal",
    [
        (422, {}, {"type": "/problems/invalid-field", "detail": "unit is empty"}),
        (404, {}, {"type": "/problems/unknown-model", "detail": "there is no model churn"}),
        (409, {}, {"type": "/problems/experiment-state", "detail": "is stopped"}),
        (500, {}, {"type": "/problems/internal-error", "detail": "a fault of ours"}),
    ],
)
def test_a_refusal_that_stays_is_raised_at_once(using, refusal):
    service = Service(refusal)
    with pytest.raises(RefusedError) as raised:
        using(service, retries=3)(lambda client: client.predict("churn", unit="u"))
    assert len(service.requests) == 1
    assert (raised.value.status, raised.value.slug) == (refusal[0], refusal[2]["type"].removeprefix("/problems/"))


def test_the_answer_to_a_lost_attempt_is_waited_for(using):
    in_flight = (409, {}, {"type": "/problems/request-in-flight", "detail": "is being answered"})
    service = Service(SILENT, in_flight, PREDICTED)
    assert using(service, retries=2)(lambda client: client.predict("churn", unit="u")).prediction_id == "p1-00"


def test_reading_and_feedback_are_repeated(using):
    service = Service(BUSY, (200, {}, {"experiments": []}))
    assert using(service, retries=1)(lambda client: client.experiments()) == []
    service = Service(SILENT, (200, {}, GET_RESULTS.answer_example))
    assert using(service, retries=1)(lambda client: client.results("e")).experiment
    service = Service(SILENT, (202, {}, {"accepted": 1}))
    using(service, retries=1)(lambda client: client.feedback("p-0", outcome=True, at=5.0))
    assert service.bodies == [{"feedback": [{"prediction_id": "p-0", "outcome": True, "time": 5.0}]}] * 2


def test_a_change_is_not_repeated():
    service = Service(BUSY)
    client = Client(transport=httpx.MockTransport(service.answer), retries=3)
    for change in (lambda: client.create({"name": "e"}), lambda: client.promote("churn", "v1")):
        with pytest.raises(RefusedError):
            change()
    assert len(service.requests) == 2


def test_all_attempts_share_one_deadline_and_each_gets_an_equal_part(using):
    service = Service(SILENT, takes_s=10.0)
    with pytest.raises(UnreachableError):
        using(service, retries=2, timeout_s=30.0)(lambda client: client.experiments())
    assert service.timeouts == pytest.approx([10.0, (20.0 - 0.1) / 2, 10.0 - 0.3])
    assert service.now - 100 == pytest.approx(30.3)


def test_the_router_is_told_how_long_each_attempt_is_waited_for(using):
    service = Service(SILENT, PREDICTED)
    using(service, retries=1, timeout_s=10.0)(lambda client: client.predict("churn", unit="u"))
    assert [request.headers["deadline-ms"] for request in service.requests] == ["5000", "9900"]
    service = Service((200, {}, {"predictions": []}), (200, {}, {"experiments": []}))
    using(service, timeout_s=1e12)(lambda client: client.predict_batch("churn", [{"unit": "u"}]))
    using(service, timeout_s=10.0)(lambda client: client.experiments())
    assert service.requests[0].headers["deadline-ms"] == "999999999"
    assert "deadline-ms" not in service.requests[1].headers


def test_a_pause_beyond_the_deadline_is_not_made(using):
    service = Service((503, {"retry-after": "60"}, {"detail": "later"}))
    with pytest.raises(RefusedError) as raised:
        using(service, retries=2, timeout_s=30.0)(lambda client: client.experiments())
    assert (raised.value.retry_after_s, service.pauses, len(service.requests)) == (60.0, [], 1)


def test_a_service_that_is_down_gets_few_more_calls(using):
    service = Service(SILENT)
    do = using(service, retries=3)
    for _ in range(100):
        with pytest.raises(UnreachableError):
            do(lambda client: client.experiments())
    assert 110 <= len(service.requests) <= 120


def test_pauses_double_up_to_their_limit(using):
    service = Service(SILENT)
    with pytest.raises(UnreachableError):
        using(service, retries=7)(lambda client: client.experiments())
    assert service.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@pytest.mark.parametrize("header", ["", "soon", "-1", "Fri, 31 Dec 1999 23:59:59 GMT", "٣"])
def test_a_retry_after_that_gives_no_seconds_is_none(using, header):
    service = Service((503, {"retry-after": header.encode()}, {"detail": "later"}))
    with pytest.raises(RefusedError) as raised:
        using(service)(lambda client: client.experiments())
    assert raised.value.retry_after_s is None


async def test_a_coroutine_waits_no_longer_than_its_deadline_for_a_frozen_service():
    async def freeze(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()

    async with AsyncClient(transport=httpx.MockTransport(freeze), timeout_s=0.1) as client:
        with pytest.raises(UnreachableError, match="does not answer: timed out"):
            await client.predict("churn", unit="u")


async def test_every_call_of_an_application_is_there_for_coroutines():
    service = Service(PREDICTED)
    async with AsyncClient("http://router:1", transport=httpx.MockTransport(service.answer)) as client:
        assert client.url == "http://router:1"
        await client.predict("churn", unit="u", entities={"shop": 7}, inputs={"age": 3.5}, time=4.0)
        assert service.bodies[-1] == {
            "unit": "u",
            "entities": {"shop": 7},
            "inputs": {"age": 3.5},
            "context": {},
            "time": 4.0,
        }
        service.answers = [(200, {}, {"verdicts": []})]
        assert await client.verdicts("e") == []
        assert service.requests[-1].url.path == "/v1/experiments/e/verdicts"
