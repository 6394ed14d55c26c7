"""What a process does now and then, for the length of a block."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shared.logs import logger


@asynccontextmanager
async def repeated(action: Callable[[], Awaitable[None]], every_s: float) -> AsyncIterator[None]:
    """Run an action every so often beside the block; one that fails is logged, and the next one is tried all the same.

    Args:
        action: what to do.
        every_s: seconds from the end of one run to the beginning of the next.
    """

    async def run() -> None:
        while True:
            try:
                await action()
            except Exception:  # noqa: BLE001 - whatever fails now may work the next time, and must not end unseen
                logger(__name__).exception("a repeated action failed", action=getattr(action, "__qualname__", ""))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
