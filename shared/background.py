"""What a process does again and again beside its main work, for the length of a block."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from shared.errors import Unavailable
from shared.logs import logger

_WORKED_S = 60.0
"""An action that ran for this long before it failed had begun to work: it is the beginning of another outage."""


@asynccontextmanager
async def run_every(
    action: Callable[[], Awaitable[None]],
    every_s: float,
    *,
    first_s: float = 0.0,
    slowest_s: float = 0.0,
    name: str = "",
) -> AsyncIterator[None]:
    """Run an action every so often beside the block. One that fails is tried again, whatever it raised.

    An action may also run for as long as it can, such as one that follows a stream: then it begins anew when it ends.

    The log has a line when the action begins to fail, with the traceback of what is no outage, and one when it works
    again: an outage of an hour is two lines, not one every other second.

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
    loop = asyncio.get_running_loop()
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
        await asyncio.sleep(pause_s)
