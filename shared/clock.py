"""Time as a dependency: handlers are given a clock, so tests and replays decide what now is."""

import time
from datetime import UTC, datetime
from typing import Protocol


def utc(seconds: float) -> str:
    """Seconds since the Unix epoch as a date and a time in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # a replay may use any time
        return f"{seconds:g}"


class Clock(Protocol):
    """Gives the time in seconds since the Unix epoch, UTC."""

    def now(self) -> float:
        """The current time in seconds since the Unix epoch."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """The current time in seconds since the Unix epoch."""
        return time.time()


class FixedClock:
    """A clock that stands until it is moved."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def now(self) -> float:
        """The time the clock was set to."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.at += seconds
