"""What protects a target, such as a service or a model version, and its callers: a circuit breaker, a retry budget."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Literal, NamedTuple, TypeVar

from prometheus_client import Counter

Permission = Literal["ask", "try", "wait"]
ResultT = TypeVar("ResultT")
TRIAL_WAIT_S = 0.05
"""Longest a caller waits for its trial: one that works again answers within it, and one that hangs costs no more."""
RETRIES_DENIED = Counter("contender_retries_denied_total", "Retries that a retry budget did not allow", ["target"])


class Faults(NamedTuple):
    """The errors by which calls to a target end.

    Attributes:
        target: its name in messages.
        failure: the target did not do its work; the breaker raises it, too.
        silence: a failure that took the whole timeout.
        refusal: a failure that is an answer all the same: the question is wrong, and the target works.
    """

    target: str
    failure: type[Exception]
    silence: type[Exception]
    refusal: tuple[type[Exception], ...] = ()


class Breaker:
    """Refuses calls to a target that fails, but for a trial now and then. Its first success closes the breaker.

    One silence opens it: the next call would wait for a whole timeout, too. Failures that cost no time, such as a
    refused connection or a status 500, open it when there are several in a row.

    While it is open, callers may make one trial at a time, a rest after the last failure. A trial goes on when its
    caller waits no longer.

    Args:
        failures: how many in a row open it.
        rest_s: seconds from a failure to the trial.
        faults: how calls end.
        clock: seconds that only go forward.
    """

    def __init__(self, failures: int, rest_s: float, faults: Faults, clock: Callable[[], float] = monotonic) -> None:
        self._limit = failures
        self._rest_s = rest_s
        self._faults = faults
        self._clock = clock
        self._failures = 0
        self._trial_at = 0.0
        self._trials: set[asyncio.Future[Any]] = set()
        self._has_trial = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self._failures >= self._limit

    async def call(self, ask: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """What `ask` returns, if it may ask now.

        Raises:
            Exception: what `ask` raises; a failure where it may not ask, or its trial takes longer than a caller waits.
        """

        async def watched() -> ResultT:
            with self.watch():
                return await ask()

        permission = self.permission()
        if permission == "wait":
            raise self._faults.failure(f"{self._faults.target} has failed just now, and is tried again shortly")
        return await watched() if permission == "ask" else await self.trial(watched)

    async def trial(self, ask: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        """What `ask`, which notes how its call ends, returns soon; for whoever may `try`.

        Raises:
            Exception: what `ask` raises; a failure where it takes longer than a caller waits.
        """
        trial = asyncio.ensure_future(ask())
        self._trials.add(trial)  # asyncio itself keeps no task alive
        trial.add_done_callback(self._end_trial)
        done, _ = await asyncio.wait({trial}, timeout=TRIAL_WAIT_S)
        if not done:
            raise self._faults.failure(f"{self._faults.target} does not answer its trial at once")
        return trial.result()

    def permission(self) -> Permission:
        """What may be done now: ask as usual, make the one trial that is due, or wait."""
        if not self.is_open:
            return "ask"
        if self._has_trial or self._clock() < self._trial_at:
            return "wait"
        self._has_trial = True
        return "try"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note how the call in the block ends. One that is cancelled is not noted."""
        try:
            yield
        except self._faults.refusal:
            self.note_success()
            raise
        except self._faults.silence:
            self.note_failure(failures=self._limit)
            raise
        except self._faults.failure:
            self.note_failure()
            raise
        self.note_success()

    def note_success(self) -> None:
        """A call was answered."""
        self._failures = 0

    def note_failure(self, failures: int = 1) -> None:
        """A call was not answered; it counts for several where it took its whole timeout."""
        self._failures += failures
        self._trial_at = self._clock() + self._rest_s

    def _end_trial(self, trial: "asyncio.Future[Any]") -> None:
        """Another trial may follow, whatever the outcome of this one."""
        self._has_trial = False
        self._trials.discard(trial)
        if not trial.cancelled():
            trial.exception()  # whoever waited has it, and nobody else needs it


class RetryBudget:
    """Bounds the retries of calls to a target to a share of the calls: one that fails does not get twice the work.

    Args:
        target: its name in /metrics.
        share: retries that each call allows.
        reserve: most retries that are saved up, which are there from the start.
    """

    def __init__(self, target: str, share: float, reserve: float) -> None:
        self._target = target
        self._share = share
        self._reserve = self._left = reserve

    def note(self, calls: int = 1) -> None:
        """So many calls are made."""
        self._left = min(self._reserve, self._left + self._share * calls)

    def take(self) -> bool:
        """Whether one more retry may be made; it counts as made."""
        if self._left < 1:
            RETRIES_DENIED.labels(self._target).inc()
            return False
        self._left -= 1
        return True
