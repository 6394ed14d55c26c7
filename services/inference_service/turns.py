"""Lets some callers through at once, some more wait for a while, and refuses the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import Overloaded


class Turns:
    """Turns of callers at a resource that serves a limited number at once.

    Args:
        at_once: callers that have a turn at the same time.
        queue_limit: callers that wait for a turn.
        wait_s: longest that they wait.
        subject: the resource, for the message of a refusal.
    """

    def __init__(self, at_once: int, queue_limit: int, wait_s: float, subject: str) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._queue_limit = queue_limit
        self._wait_s = wait_s
        self._subject = subject
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn for the length of the block.

        Raises:
            Overloaded: too many wait, or the turn has not come in time.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    @property
    def idle(self) -> bool:
        """Whether a caller would have a turn at once."""
        return not self._free.locked()

    async def _wait(self) -> None:
        if self._waiting >= self._queue_limit:
            raise Overloaded(f"{self._waiting} calls wait for {self._subject} already")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded(f"{self._subject} was busy for {self._wait_s:g} s") from error
        finally:
            self._waiting -= 1
