"""What the worker does beside its streams: it judges whatever fails, and sends verdicts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from contender.contracts.feedback_service import VerdictEvent
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.verdict_store import InMemoryVerdictStore, VerdictStore
from services.feedback_service.worker import create_sender, judge_experiments
from shared.errors import Unavailable

EVENT = VerdictEvent(
    experiment="ä",
    number=2,
    kind="questioned",
    challenger="b",
    status="challenger better",
    sentence="labels no longer arrive alike",
    at=1_700_000_000.5,
    model="m",
    metric="log_loss",
    revision=1,
)


class Application:
    """A Faust application as far as it is needed here."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.tasks: list[Callable[[], Awaitable[None]]] = []
        self.sent: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def task(self, action: Callable[[], Awaitable[None]]) -> None:
        self.tasks.append(action)

    async def wait_until_stopped(self) -> None:
        await self.stopped.wait()

    def topic(self, name: str, **_: str) -> "Application":
        assert name == "verdicts"
        return self

    async def send(self, **record: Any) -> Awaitable[None]:
        async def acknowledged() -> None:
            if self.error:
                raise self.error
            self.sent.append(record)

        return acknowledged()


class FailingJudge:
    """A judge whose first looks fail."""

    def __init__(self) -> None:
        self.errors: list[Exception] = [ResultsUnavailable("Redis is away"), ArithmeticError("a fault")]
        self.looked = asyncio.Event()

    async def look(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.looked.set()


async def test_judging_goes_on_after_the_database_and_looks_have_failed():
    app, judge, opened = Application(), FailingJudge(), []

    @asynccontextmanager
    async def open_verdicts() -> AsyncIterator[VerdictStore]:
        opened.append(len(opened))
        if len(opened) < 3:
            raise ConnectionRefusedError
        yield InMemoryVerdictStore()

    judge_experiments(app, open_verdicts, lambda _: judge, 0.01)
    async with asyncio.timeout(10):
        running = asyncio.create_task(app.tasks[0]())
        await judge.looked.wait()
        app.stopped.set()
        await running
    assert opened == [0, 1, 2]


async def test_a_verdict_is_sent_with_the_same_id_each_time():
    app = Application()
    for _ in range(2):
        await create_sender(app)(EVENT)
    first, second = app.sent
    assert first == second
    assert first["key"] == "ä".encode()
    assert first["headers"]["ce_id"] == "ä/2".encode()
    assert first["headers"]["ce_time"] == b"2023-11-14T22:13:20.500000Z"


async def test_a_verdict_that_kafka_does_not_take_is_an_outage():
    app = Application()
    app.error = KafkaConnectionError()
    with pytest.raises(Unavailable):
        await create_sender(app)(EVENT)
