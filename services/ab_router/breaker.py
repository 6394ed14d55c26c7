"""A circuit breaker: a version or service that fails repeatedly gets no calls but a trial now and then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Literal

from services.ab_router.clients import CallError, QuestionRefusedError

Permission = Literal["ask", "try", "wait"]


class Breaker:
    """Opens after several failures in a row, and closes at the first success.

    While it is open, callers may make one trial at a time, a rest after the last failure. Whoever makes a trial notes
    its outcome, and ends it by `end_trial`.

    Args:
        failures: how many in a row open it.
        rest_s: seconds from a failure to the trial.
        clock: seconds that only go forward.
    """

    def __init__(self, failures: int, rest_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._limit = failures
        self._rest_s = rest_s
        self._clock = clock
        self._failures = 0
        self._trial_at = 0.0
        self._has_trial = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self._failures >= self._limit

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
        """Note whether the call in the block is answered. A refusal is an answer; a cancelled call is not noted."""
        try:
            yield
        except QuestionRefusedError:
            self.note_success()
            raise
        except CallError:
            self.note_failure()
            raise
        self.note_success()

    def note_success(self) -> None:
        """A call was answered."""
        self._failures = 0

    def note_failure(self) -> None:
        """A call was not answered in time, or not at all."""
        self._failures += 1
        self._trial_at = self._clock() + self._rest_s

    def end_trial(self) -> None:
        """The trial is over, whatever its outcome: another one may follow."""
        self._has_trial = False
