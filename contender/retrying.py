"""Sends a call again after a failure that may pass: when, how often, and for which share of the calls.

Only a call that changes nothing twice is sent again: one that reads, a prediction with a `request_id`, and feedback,
since a prediction has one label of a kind however often it is reported.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from time import monotonic

from contender.contracts.ab_router import REQUEST_IN_FLIGHT
from contender.errors import RefusedError, UnreachableError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
RESERVE = 10.0
"""Retries that a client has at first, and at most."""
EARNED = 0.1
"""Retries that a call adds, so that a service which is down gets a tenth more calls, and not a multiple of them."""

_PASSING = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass
class RetryBudget:
    """The retries that all calls of a client have left."""

    left: float = RESERVE

    def earn(self) -> None:
        """Count a call."""
        self.left = min(RESERVE, self.left + EARNED)

    def spend(self) -> bool:
        """Take a retry; false where none is left."""
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Retrying:
    """How a client sends calls again.

    Attributes:
        retries: most repetitions of one call.
        clock: seconds that only go forward.
        draw: a number from 0 to 1, so that clients which failed together do not come back together.
        budget: shared by all calls.
    """

    retries: int = 0
    clock: Callable[[], float] = monotonic
    draw: Callable[[], float] = random.random
    budget: RetryBudget = field(default_factory=RetryBudget)

    def attempts(self, timeout_s: float, *, repeatable: bool) -> "Attempts":
        """The attempts of one call, which have `timeout_s` together."""
        self.budget.earn()
        return Attempts(self, self.clock() + timeout_s, self.retries if repeatable else 0)


@dataclass
class Attempts:
    """The attempts of one call; `left` are its repetitions to come."""

    retrying: Retrying
    deadline: float
    left: int
    made: int = 0

    @property
    def timeout_s(self) -> float:
        """Longest wait for the next attempt: an equal part of what is left, so that a frozen service leaves some."""
        return max(0.001, self.deadline - self.retrying.clock()) / (1 + self.left)

    def pause_s(self, error: RefusedError | UnreachableError) -> float | None:
        """Seconds until the next attempt after a failed one; None where there is no further one.

        It waits for as long as the service asks (Retry-After), and a random part of a pause that doubles.
        """
        if self.left == 0 or not _may_pass(error):
            return None
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self.made)
        pause_s = self.retrying.draw() * longest_s + _asked_for_s(error)
        if self.retrying.clock() + pause_s >= self.deadline or not self.retrying.budget.spend():
            return None
        self.left -= 1
        self.made += 1
        return pause_s


def _may_pass(error: RefusedError | UnreachableError) -> bool:
    """Whether the same call may succeed a little later."""
    return (
        isinstance(error, UnreachableError)
        or error.status in _PASSING
        or error.slug == REQUEST_IN_FLIGHT.slug  # the first attempt, whose answer was lost
    )


def _asked_for_s(error: RefusedError | UnreachableError) -> float:
    return (error.retry_after_s or 0.0) if isinstance(error, RefusedError) else 0.0
