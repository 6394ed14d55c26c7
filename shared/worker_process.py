"""How a worker runs: its Faust application, with health and metrics over HTTP."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust
from fastapi import FastAPI

from shared.connections import ConnectionLimits, serving
from shared.guard import Admission, Guard
from shared.http import create_app
from shared.logs import logger
from shared.settings import ServiceName, Settings
from shared.streams import Membership

# A worker that does not stop in time is killed by its supervisor; its stored offsets make that harmless.
_STOP_S = 10


def run_worker(
    create: Callable[[], faust.App],
    settings: Settings,
    service: ServiceName,
    *,
    ready: Callable[[], Awaitable[list[str]]],
) -> None:
    """Run a Faust application with /livez, /readyz and /metrics until SIGTERM.

    A crash ends the process with 1, and so does a wait for partitions without progress: a new process may get them.

    Args:
        create: makes the application.
        settings: where health and metrics are served, and how long it may wait for its partitions without progress.
        service: whose worker it is.
        ready: gives the reasons why the worker can't do its job, beside those of the group.
    """
    if asyncio.run(_serve_worker(create, settings, service, ready)):
        raise SystemExit(1)


async def _serve_worker(
    create: Callable[[], faust.App],
    settings: Settings,
    service: ServiceName,
    ready: Callable[[], Awaitable[list[str]]],
) -> bool:
    app = create()
    membership = Membership(app)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    health = Guard(worker_app(membership, ready), Admission.of(settings))
    limits, port = ConnectionLimits.of(settings), settings.worker_port(service)
    async with serving(health, limits, settings.host, port, {"settings": settings}):
        return await _run(app, membership, stopping, settings.worker_stall_timeout_s)


async def _run(app: faust.App, membership: Membership, stopping: asyncio.Event, stall_timeout_s: float) -> bool:
    """Run the application until it is asked to stop; return whether it ended for another reason."""
    app.loop = asyncio.get_running_loop()
    started = asyncio.create_task(app.start())
    ended = asyncio.create_task(app.wait_until_stopped())
    asked = asyncio.create_task(stopping.wait())
    stuck = asyncio.create_task(membership.wait_until_stuck(stall_timeout_s))
    await asyncio.wait({ended, asked, stuck}, return_when=asyncio.FIRST_COMPLETED)
    crashed = not stopping.is_set()
    if stuck.done():
        logger(__name__).error("the worker ends: its group gives it no partitions", waited_s=stall_timeout_s)
    for task in (ended, asked, stuck):
        task.cancel()
    try:
        async with asyncio.timeout(_STOP_S):
            await app.stop()
    except TimeoutError:
        crashed = True
    started.cancel()
    await asyncio.gather(started, ended, asked, stuck, return_exceptions=True)
    return crashed


def worker_app(membership: Membership, ready: Callable[[], Awaitable[list[str]]]) -> FastAPI:
    """The health of a worker over HTTP, as every service answers it."""

    async def reasons(_: Mapping[str, Any]) -> list[str]:
        waits = [] if membership.complete else ["the worker has not got its partitions yet"]
        return [*waits, *await ready()]

    name = membership.app.conf.id
    return create_app(service=name, title=name, ready=reasons, progress=membership.progress)
