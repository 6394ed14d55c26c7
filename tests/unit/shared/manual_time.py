"""An event loop whose time stands still until a test moves it, so that no result depends on the machine's speed."""

import asyncio
from collections.abc import Callable

_ROUNDS = 10
"""Rounds of the loop after each step of time, in which timers run and sockets are read."""


class ManualTimeLoop(asyncio.SelectorEventLoop):
    """Sockets work as usual; timers run only while a test moves the time."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__()

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now_s

    async def advance(self, seconds: float, step_s: float) -> None:
        """Move the time forward by `seconds`, in steps that are shorter than the pauses of whoever looks at it."""
        for _ in range(round(seconds / step_s)):
            self._now_s += step_s
            for _ in range(_ROUNDS):
                await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds, without moving the time."""
    while not condition():
        await asyncio.sleep(0)
