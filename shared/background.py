"""What a process does beside its main work: actions that run again and again, and readings that callers share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from shared.errors import Unavailable
from shared.logs import logger

_WORKED_S = 60.0
"""An action that ran for this long before it failed had worked: its failure begins another outage."""


@asynccontextmanager
async def run_every(
    action: Callable[[], Awaitable[None]],
    every_s: float,
    *,
    first_s: float = 0.0,
    slowest_s: float = 0.0,
    name: str = "",
) -> AsyncIterator[None]:
    """Run an action every so often beside the block. A run that fails is repeated, whatever it raised.

    An action may also run for as long as it can, such as one that follows a stream; it starts again when it ends.

    The log gets a line when the action begins to fail, with a traceback unless it is an outage, and a line when it
    works again. So an outage of an hour takes two lines.

    Args:
        action: what to do.
        every_s: seconds from the end of one run to the beginning of the next.
        first_s: seconds before the first run.
        slowest_s: while the action fails, the pause doubles from `every_s` up to this; default: it stays as it is.
        name: what the log calls the action; default: its own name.
    """
    task = asyncio.create_task(run_forever(action, every_s, first_s=first_s, slowest_s=slowest_s, name=name))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run_forever(
    action: Callable[[], Awaitable[None]],
    every_s: float,
    *,
    first_s: float = 0.0,
    slowest_s: float = 0.0,
    name: str = "",
) -> NoReturn:
    """As `run_every`, for a task that the caller starts and cancels."""
    log = logger(__name__).bind(action=name or getattr(action, "__qualname__", repr(action)))
    failures, pause_s = 0, every_s
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    await asyncio.sleep(first_s)
    while True:
        began = loop.time()
        try:
            await action()
        except Exception as error:  # whatever fails now may work the next time, and must not end unseen
            failures = failures + 1 if loop.time() - began < _WORKED_S else 1
            if failures == 1:
                # An outage needs no traceback: its message and its cause say what is away.
                is_outage = isinstance(error, OSError | Unavailable)
                cause = {} if error.__cause__ is None else {"cause": repr(error.__cause__)}
                message = "an action fails and is repeated until it works"
                log.warning(message, error=repr(error), exc_info=not is_outage, **cause)
            else:
                log.debug("an action fails again", error=repr(error), failures=failures)
            pause_s = every_s if failures == 1 else max(every_s, min(2 * pause_s, slowest_s))
        else:
            if failures:
                log.info("an action works again", failures=failures)
            failures, pause_s = 0, every_s
        if task is not None and task.cancelling():  # an action may lose it, as redis-py does while it connects
            raise asyncio.CancelledError
        await asyncio.sleep(pause_s)


async def until_available(
    action: Callable[[], Awaitable[None]], every_s: float, *, slowest_s: float, name: str
) -> None:
    """Do something once, and try again for as long as what it needs is away; the log says so once.

    Args:
        action: what to do; it raises Unavailable where it must be tried again, and any other error is the caller's.
        every_s: seconds before the second attempt; the pause doubles up to `slowest_s`.
        slowest_s: the longest pause.
        name: what the log calls the action.
    """
    log, failures = logger(__name__).bind(action=name), 0
    while True:
        try:
            await action()
        except Unavailable as error:
            failures += 1
            if failures == 1:
                log.warning("an action waits for what it needs", error=str(error), cause=repr(error.__cause__))
            await asyncio.sleep(every_s)
            every_s = min(2.0 * every_s, slowest_s)
        else:
            if failures:
                log.info("an action works again", failures=failures)
            return


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
