"""Reads something again for callers who need a reading that is newer than their question."""

import asyncio
from collections.abc import Awaitable, Callable


class SharedReading:
    """Readings that concurrent callers share. A caller shares only a reading that begins after it asked.

    At most one reading runs and one waits for its turn, whatever the number of callers.

    Args:
        read: reads; its errors reach every caller that shares the reading.
        rest_s: least seconds from one reading's beginning to the next one's.
    """

    def __init__(self, read: Callable[[], Awaitable[None]], rest_s: float = 0.0) -> None:
        self._read = read
        self._rest_s = rest_s
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def fresh(self) -> None:
        """Return when a reading that began after this call has ended."""
        await asyncio.shield(self.begin())

    def begin(self) -> "asyncio.Task[None]":
        """The reading that begins next, without waiting for it."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._running))
        return self._next

    async def close(self) -> None:
        """Cancel the readings under way."""
        tasks = [task for task in (self._running, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next_at - loop.time()))
        self._next_at = loop.time() + self._rest_s
        self._running, self._next = self._next, None  # whoever asks from now on waits for another one
        await self._read()
