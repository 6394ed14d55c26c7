"""Plans by the feedback service, whatever it answers."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
import pytest

from contender.contracts.feedback_service import NO_RECORD, PLAN_EXPERIMENT, Plan, PlanRequest
from contender.contracts.problems import OVERLOADED, ProblemType, details
from services.ab_router.plans import HttpPlans, NoPlanError
from shared.http_client import Answer, ServiceClient, ServiceConnectionError

REQUEST = PlanRequest(model="late", metric="log_loss", effect=0.01)


class FakeClient(ServiceClient):
    """Answers as told, and notes what it was asked."""

    def __init__(self, answer: Callable[[], Answer]) -> None:
        super().__init__("http://127.0.0.1:1", 1)
        self.answer = answer
        self.asked: list[tuple[str, str, bytes]] = []

    async def request(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        assert headers == {"content-type": "application/json"}
        self.asked.append((method, path, content))
        return self.answer()


def answer(content: object, status: int = 200) -> Callable[[], Answer]:
    return lambda: Answer(status, {}, content if isinstance(content, bytes) else msgspec.json.encode(content))


def problem(kind: ProblemType, detail: str) -> Callable[[], Answer]:
    return answer(details(kind, detail), kind.status)


async def test_a_plan_is_asked_as_the_contract_says():
    client = FakeClient(answer(PLAN_EXPERIMENT.answer_example))
    planned = await HttpPlans(client, 60.0).plan(REQUEST)
    assert planned == msgspec.convert(PLAN_EXPERIMENT.answer_example, Plan)
    ((method, path, content),) = client.asked
    assert (method, path, msgspec.json.decode(content, type=PlanRequest)) == ("POST", "/v1/plan", REQUEST)


def fail() -> Answer:
    raise ServiceConnectionError("no connection")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (problem(NO_RECORD, "x"), "no experiment of the model has matured rows"),
        (problem(OVERLOADED, "too much to do"), "too much to do"),
        (answer(b"", 500), "answers with status 500"),
        (answer(b"no JSON"), "does not answer"),
        (answer({"rows": 3}), "does not answer"),
        (fail, "does not answer"),
    ],
    ids=["no record", "overloaded", "failed", "no JSON", "another shape", "away"],
)
async def test_there_is_no_plan_and_the_error_says_why(answer, words):
    with pytest.raises(NoPlanError, match=words):
        await HttpPlans(FakeClient(answer), 60.0).plan(REQUEST)


async def test_a_frozen_service_is_given_up_in_time():
    given_up, closed = asyncio.Event(), asyncio.Event()

    async def freeze(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await given_up.wait()
        writer.close()
        closed.set()

    server = await asyncio.start_server(freeze, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(60), server, ServiceClient(url, 1) as client:
        with pytest.raises(NoPlanError, match="does not answer"):
            await HttpPlans(client, 0.05).plan(REQUEST)
        given_up.set()
        await closed.wait()
