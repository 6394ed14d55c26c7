"""What is done again and again goes on whatever it raises, and an outage is two lines of the log."""

import asyncio
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from shared.background import run_every, until_available
from shared.errors import Unavailable
from tests.unit.shared.manual_time import ManualTimeLoop

DEADLINE_S = 60


class Action:
    """Fails as often as it is told to, then succeeds."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.runs = 0
        self.at: list[float] = []

    async def run(self) -> None:
        self.at.append(asyncio.get_running_loop().time())
        self.runs += 1
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    async def until(self, runs: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.runs < runs:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [OSError("refused"), KeyError("odd"), ExceptionGroup("many", [ValueError()])])
async def test_an_action_that_fails_is_tried_again(error):
    action = Action(error, error, error)
    async with run_every(action.run, 0.001):
        await action.until(6)


async def test_an_outage_is_a_line_when_it_begins_and_a_line_when_it_ends():
    action = Action(None, *[OSError("refused")] * 20, None, OSError("again"))
    with capture_logs() as logs:
        async with run_every(action.run, 0.001, name="read it"):
            await action.until(26)
    lines = [(line["log_level"], line["action"]) for line in logs if line["log_level"] != "debug"]
    assert lines == [("warning", "read it"), ("info", "read it")] * 2
    assert logs[0]["error"] == "OSError('refused')"
    assert not logs[0]["exc_info"]


async def test_the_log_has_the_cause_of_an_outage_and_the_traceback_of_a_fault():
    away = Unavailable("experiments can't be read")
    away.__cause__ = OSError("refused")
    for error, has_traceback, cause in ((away, False, "OSError('refused')"), (KeyError("odd"), True, None)):
        action = Action(error)
        with capture_logs() as logs:
            async with run_every(action.run, 0.001):
                await action.until(2)
        assert (logs[0]["exc_info"], logs[0].get("cause")) == (has_traceback, cause)


async def test_the_first_run_may_wait():
    action = Action()
    async with run_every(action.run, 60, first_s=60):
        for _ in range(10):
            await asyncio.sleep(0)
    assert action.runs == 0


async def test_pauses_grow_while_it_fails_up_to_the_slowest(manual_time: ManualTimeLoop):
    action = Action(*[OSError()] * 6)
    async with run_every(action.run, 0.01, slowest_s=0.04):
        await manual_time.advance(0.3, 0.01)
    pauses = [after - before for before, after in pairwise(action.at)]
    assert pauses[:8] == pytest.approx([0.01, 0.02, 0.04, 0.04, 0.04, 0.04, 0.01, 0.01])


async def test_leaving_ends_an_action_that_hangs():
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(DEADLINE_S):
        async with run_every(hang, 0.001):
            await reached.wait()


async def test_what_waits_is_done_once_and_the_log_says_when_it_began_and_ended():
    action = Action(*[Unavailable("the database does not answer")] * 20)
    with capture_logs() as logs:
        async with asyncio.timeout(DEADLINE_S):
            await until_available(action.run, 0.001, slowest_s=0.002, name="act")
    assert action.runs == 21
    assert [(line["log_level"], line["action"]) for line in logs] == [("warning", "act"), ("info", "act")]


async def test_another_error_is_the_callers():
    action = Action(Unavailable("away"), KeyError("odd"))
    with pytest.raises(KeyError):
        await until_available(action.run, 0.001, slowest_s=0.001, name="act")
    assert action.runs == 2


@pytest.mark.parametrize("error", [None, OSError("timed out")])
async def test_an_action_that_loses_its_cancellation_ends_all_the_same(error):
    waiting = asyncio.Event()

    async def lose() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    async with asyncio.timeout(DEADLINE_S):
        async with run_every(lose, 3_600):
            await waiting.wait()
