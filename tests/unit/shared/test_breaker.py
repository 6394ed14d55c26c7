"""A target that fails costs its callers little, and gets little more work: breakers and retry budgets."""

import asyncio

import pytest

from shared.breaker import TRIAL_WAIT_S, Breaker, Faults, RetryBudget


class FailedError(Exception):
    """The target failed."""


class SilentError(FailedError):
    """The target took the whole timeout."""


class RefusedError(FailedError):
    """The target refused the question."""


class Hands:
    """A clock that is moved by hand."""

    at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def breaker(clock: Hands) -> Breaker:
    return Breaker(3, 1.0, Faults("x", FailedError, SilentError, (RefusedError,)), clock)


async def ask(breaker: Breaker, outcome: object = "answer") -> str:
    """How a call ends, or that the breaker did not let it through."""
    is_asked = False

    async def answer() -> object:
        nonlocal is_asked
        is_asked = True
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
        elif outcome != "answer":
            raise outcome
        return outcome

    try:
        await breaker.call(answer)
    except FailedError as error:
        return type(error).__name__ if is_asked else "not asked"
    return "answered"


async def test_a_breaker_opens_after_failures_in_a_row_and_closes_with_a_trial_after_its_rest(breaker, clock):
    for outcome in (
        FailedError(),
        FailedError(),
        "answer",
        FailedError(),
        FailedError(),
        RefusedError(),
        FailedError(),
        FailedError(),
    ):
        assert await ask(breaker, outcome) != "not asked"
    assert not breaker.is_open
    assert [await ask(breaker, FailedError()), await ask(breaker)] == ["FailedError", "not asked"]
    clock.at = 1.0
    assert [await ask(breaker, FailedError()), await ask(breaker)] == ["FailedError", "not asked"]
    clock.at = 2.0
    assert [await ask(breaker), await ask(breaker)] == ["answered", "answered"]


async def test_one_silence_opens_a_breaker(breaker):
    assert [await ask(breaker, SilentError()), await ask(breaker)] == ["SilentError", "not asked"]


async def test_a_trial_that_hangs_does_not_keep_its_caller_and_closes_the_breaker_when_it_is_answered(breaker, clock):
    await ask(breaker, SilentError())
    clock.at, answered = 1.0, asyncio.Event()
    began = asyncio.get_running_loop().time()
    assert await ask(breaker, answered) == "FailedError"
    assert asyncio.get_running_loop().time() - began < 10 * TRIAL_WAIT_S
    clock.at = 5.0
    assert await ask(breaker) == "not asked"  # one trial at a time
    answered.set()
    while breaker.is_open:
        await asyncio.sleep(0)
    assert await ask(breaker) == "answered"


async def test_a_trial_whose_caller_leaves_goes_on(breaker, clock):
    await ask(breaker, SilentError())
    clock.at, answered = 1.0, asyncio.Event()
    caller = asyncio.create_task(ask(breaker, answered))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    answered.set()
    while breaker.is_open:
        await asyncio.sleep(0)


async def test_a_cancelled_call_is_neither_an_answer_nor_a_failure(breaker):
    await ask(breaker, FailedError())
    await ask(breaker, FailedError())
    caller = asyncio.create_task(ask(breaker, asyncio.Event()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert not breaker.is_open
    await ask(breaker, FailedError())
    assert breaker.is_open


def test_a_trial_that_asks_nothing_leaves_room_for_another(breaker, clock):
    breaker.note_failure(failures=3)
    clock.at = 1.0
    assert [breaker.permission(), breaker.permission()] == ["try", "wait"]


def test_retries_are_a_share_of_the_calls_beyond_a_reserve():
    budget = RetryBudget("x", share=0.1, reserve=5)
    assert [budget.take() for _ in range(7)] == [True] * 5 + [False] * 2
    budget.note(calls=25)
    assert [budget.take() for _ in range(4)] == [True, True, False, False]
    budget.note(calls=10_000)
    assert sum(budget.take() for _ in range(100)) == 5
