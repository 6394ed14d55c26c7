"""Which versions are open: each once, the longest unused closed first, and never on the event loop."""

import asyncio
import json
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from contender.contracts.inference_service import ModelVersion, ScoredRows, VersionDetails
from services.inference_service.errors import VersionUnavailableError
from services.inference_service.runtime import Runtime
from services.inference_service.session import Session
from services.inference_service.store import InMemoryVersionStore
from services.inference_service.trials import Trials
from services.inference_service.turns import Turns
from services.inference_service.watchdog import Watchdog
from shared.errors import Overloaded
from tests.unit.inference_service.graphs import small

DEADLINE_S = 60


class Openings:
    """Opens sessions, and notes of which model and in which thread; waits while it shall."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.threads: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, content: bytes, version: ModelVersion) -> Session:
        self.models.append(version.model)
        self.threads.append(threading.current_thread().name)
        self.go_on.wait(DEADLINE_S)
        return Session.of(content, version)


@pytest.fixture
def openings() -> Openings:
    return Openings()


@pytest.fixture
def open_seconds() -> float:
    """More than any opening that ends takes; a test of one that is held up gives its own."""
    return 60.0


@pytest.fixture
async def runtime(state, settings, openings, open_seconds):
    """A runtime that holds two versions."""
    few = settings.model_copy(update={"session_limit": 2, "open_seconds": open_seconds})
    runtime = Runtime(state["models"].files, Trials(few), few, openings)
    yield runtime
    await runtime.close()


async def test_the_version_that_was_unused_for_longest_is_closed_first(keep, runtime, openings):
    versions = {name: await keep(name, small()) for name in ("one", "two", "three")}
    for name in ("one", "two", "one", "three", "one", "two"):
        assert (await runtime.answer(versions[name], {"x": [2.0]})).scores == [2.0]
    assert openings.models == ["one", "two", "three", "two"]


async def test_a_version_is_opened_once_for_all_who_ask_at_the_same_time_and_in_a_thread(keep, runtime, openings):
    version = await keep("churn", small())
    answers = await asyncio.gather(*(runtime.answer(version, {"x": [float(n)]}) for n in range(20)))
    assert [answer.scores for answer in answers] == [[float(n)] for n in range(20)]
    assert openings.models == ["churn"]
    assert openings.threads != [threading.main_thread().name]


async def test_a_registered_version_is_open_before_anybody_knows_of_it(state, runtime, openings):
    known: list[list[str]] = []

    class Watched(InMemoryVersionStore):
        async def add(self, version: VersionDetails) -> bool:
            known.append(list(openings.models))
            return await super().add(version)

    models = replace(state["models"], store=Watched(), runtime=runtime)
    export = small()
    await models.register(
        "churn", export.onnx, json.dumps(export.manifest).encode(), json.dumps(export.sample).encode()
    )
    assert known == [["churn"]]
    assert (await models.answer("churn", "champion", {"x": [1.0]})).scores == [1.0]
    assert openings.models == ["churn"]


async def test_a_version_that_can_not_be_opened_is_tried_again_by_the_next_call(keep, runtime, settings):
    version = await keep("churn", small())
    file = settings.folder("inference_service") / "models" / f"{version.version}.onnx"
    content = file.read_bytes()
    file.unlink()
    for _ in range(2):
        with pytest.raises(VersionUnavailableError, match="is not there"):
            await runtime.answer(version, {"x": [1.0]})
    file.write_bytes(content)
    assert (await runtime.answer(version, {"x": [1.0]})).scores == [1.0]


@pytest.mark.parametrize("open_seconds", [0.1])
async def test_an_opening_that_takes_longer_than_it_may_is_not_waited_for(keep, runtime, openings):
    version = await keep("churn", small())
    openings.go_on.clear()
    with pytest.raises(VersionUnavailableError, match="is being opened"):
        await runtime.answer(version, {"x": [1.0]})
    openings.go_on.set()
    assert (await answer_in_the_end(runtime, version, 1.0)).scores == [1.0]
    assert openings.models == ["churn"]


async def answer_in_the_end(runtime: Runtime, version: ModelVersion, value: float) -> ScoredRows:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with suppress(VersionUnavailableError):
                return await runtime.answer(version, {"x": [value]})


async def test_turns_are_had_by_some_waited_for_by_some_and_refused_to_the_others():
    turns = Turns(2, 1, 0.05, "the bench")
    free = asyncio.Event()

    async def sit() -> None:
        async with turns.turn():
            await free.wait()

    sitting = [asyncio.create_task(sit()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(sit())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 calls wait for the bench already"):
        await sit()
    with pytest.raises(Overloaded, match=r"the bench was busy for 0\.05 s"):
        await waiting
    free.set()
    await asyncio.gather(*sitting)
    await sit()


def test_a_run_is_ended_once_its_time_is_over_and_not_before():
    watchdog = Watchdog()
    with watchdog.limit(60) as long, watchdog.limit(0.05) as short:
        end = time.monotonic() + DEADLINE_S
        while not short.late and time.monotonic() < end:
            threading.Event().wait(0.01)
        assert short.late
        assert short.options.terminate
        assert not long.late
        assert not long.options.terminate
