"""How a service's processes run: a web process, a worker with a health endpoint, or both."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import faust
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from shared.connections import ConnectionLimits, bounded_config, serving
from shared.guard import Admission, Guard
from shared.http import create_app
from shared.logs import logger
from shared.settings import ServiceName, Settings
from shared.streams import Membership

_DRAIN_S = 5
# A worker that does not stop in time is killed by its supervisor; its stored offsets make that harmless.
_STOP_S = 10


def run_web(app: FastAPI, settings: Settings, service: ServiceName) -> None:
    """Serve until SIGTERM, then finish what is in flight and exit with 0."""
    # uvicorn raises the signal again once it has shut down; without this the process would die of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = bounded_config(
        Guard(app, Admission.of(settings)),
        ConnectionLimits.of(settings),
        host=settings.host,
        port=settings.port(service),
        timeout_graceful_shutdown=_DRAIN_S,
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def run_worker(
    create: Callable[[], faust.App],
    settings: Settings,
    service: ServiceName,
    *,
    ready: Callable[[], Awaitable[list[str]]],
) -> None:
    """Run a Faust application with /livez, /readyz and /metrics until SIGTERM.

    A crash ends the process with 1, and so does a wait for partitions that gets nowhere: a new process may fare better.

    Args:
        create: makes the application.
        settings: where health and metrics are served, and how long it may wait for its partitions without a step.
        service: whose worker it is.
        ready: why the worker can't do its job, but for the group.
    """
    if asyncio.run(_serve_worker(create, settings, service, ready)):
        sys.exit(1)


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
    """Run the application until it is asked to stop; whether it ended otherwise."""
    app.loop = asyncio.get_running_loop()
    started = asyncio.create_task(app.start())
    ended = asyncio.create_task(app.wait_until_stopped())
    asked = asyncio.create_task(stopping.wait())
    lost = asyncio.create_task(membership.wait_until_stuck(stall_timeout_s))
    await asyncio.wait({ended, asked, lost}, return_when=asyncio.FIRST_COMPLETED)
    crashed = not stopping.is_set()
    if lost.done():
        logger(__name__).error("the worker ends: its group gives it no partitions", waited_s=stall_timeout_s)
    for task in (ended, asked, lost):
        task.cancel()
    try:
        async with asyncio.timeout(_STOP_S):
            await app.stop()
    except TimeoutError:
        crashed = True
    started.cancel()
    await asyncio.gather(started, ended, asked, lost, return_exceptions=True)
    return crashed


def worker_app(membership: Membership, ready: Callable[[], Awaitable[list[str]]]) -> FastAPI:
    """The health of a worker over HTTP, as every service answers it."""

    async def reasons(_: Mapping[str, Any]) -> list[str]:
        waits = [] if membership.complete else ["the worker has not got its partitions yet"]
        return [*waits, *await ready()]

    name = membership.app.conf.id
    return create_app(service=name, title=name, ready=reasons, progress=membership.progress)


def run_role(
    service: ServiceName, settings: Settings, roles: Mapping[str, Callable[[Any], None]], arguments: list[str]
) -> None:
    """Run the role a command line names: `web`, `worker`, or `all`, which is a child process for each.

    Raises:
        SystemExit: the role is unknown, or a child has ended.
    """
    role = arguments[0] if arguments else "all"
    if role in roles:
        roles[role](settings)
    elif role == "all":
        sys.exit(_run_all(service, list(roles)))
    else:
        sys.exit(f"unknown role {role}: expected {', '.join([*roles, 'all'])}")


def _run_all(service: ServiceName, roles: list[str]) -> int:
    children = [subprocess.Popen([sys.executable, "-m", f"services.{service}", role]) for role in roles]  # noqa: S603 - our own modules

    def pass_on(number: int, _: object) -> None:
        for child in children:
            child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    codes: list[int] = []
    while len(codes) < len(children):
        codes = [code for child in children if (code := _code(child)) is not None]
        if any(codes):  # one process is half a service: end the other, and let the supervisor start both again
            pass_on(signal.SIGTERM, None)
            codes = [child.wait(_STOP_S + _DRAIN_S) for child in children]
    return max(abs(code) for code in codes)


def _code(child: "subprocess.Popen[bytes]") -> int | None:
    try:
        return child.wait(0.2)
    except subprocess.TimeoutExpired:
        return None
