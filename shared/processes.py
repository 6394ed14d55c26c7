"""How a service's processes run: a web process, a worker with a health endpoint, or both."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust
import uvicorn
from aiohttp import web as aiohttp_web
from fastapi import FastAPI
from prometheus_client import generate_latest

from shared.logs import logger
from shared.one_piece import OnePieceProtocol
from shared.settings import ServiceName, Settings
from shared.streams import Membership, Steps

_DRAIN_S = 5
# A worker that does not stop in time is killed by its supervisor; its stored offsets make that harmless.
_STOP_S = 10
ROLES = ("web", "worker", "all")


def run_web(app: FastAPI, *, host: str, port: int) -> None:
    """Serve until SIGTERM, then finish what is in flight and exit with 0."""
    # uvicorn raises the signal again once it has shut down; without this the process would die of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=OnePieceProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_DRAIN_S,
        server_header=False,
    )


def run_worker(
    create: Callable[[], faust.App],
    *,
    host: str,
    port: int,
    ready: Callable[[], Awaitable[list[str]]],
    patience_s: float,
    steps: Steps | None = None,
) -> None:
    """Run a Faust application with /livez, /readyz and /metrics until SIGTERM.

    A crash ends the process with 1, and so does a wait for partitions that gets nowhere: a new process may fare better.

    Args:
        create: makes the application.
        host: where health and metrics are served.
        port: the same.
        ready: why the worker can't do its job, but for the group.
        patience_s: how long it may wait for its partitions without a step.
        steps: counts those of the worker's own.
    """
    serving = _serve_worker(create, host=host, port=port, ready=ready, patience_s=patience_s, steps=steps or Steps())
    crashed = asyncio.run(serving)
    if crashed:
        sys.exit(1)


async def _serve_worker(
    create: Callable[[], faust.App],
    *,
    host: str,
    port: int,
    ready: Callable[[], Awaitable[list[str]]],
    patience_s: float,
    steps: Steps,
) -> bool:
    app = create()
    membership = Membership(app, steps)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    health = aiohttp_web.AppRunner(_health(membership, ready))
    await health.setup()
    await aiohttp_web.TCPSite(health, host, port).start()
    app.loop = loop
    started = asyncio.create_task(app.start())
    ended = asyncio.create_task(app.wait_until_stopped())
    asked = asyncio.create_task(stopping.wait())
    lost = asyncio.create_task(membership.lost(patience_s))
    await asyncio.wait({ended, asked, lost}, return_when=asyncio.FIRST_COMPLETED)
    crashed = not stopping.is_set()
    if lost.done():
        logger(__name__).error("the worker ends: its group gives it no partitions", waited_s=patience_s)
    for task in (ended, asked, lost):
        task.cancel()
    try:
        async with asyncio.timeout(_STOP_S):
            await app.stop()
    except TimeoutError:
        crashed = True
    started.cancel()
    await asyncio.gather(started, ended, asked, lost, return_exceptions=True)
    await health.cleanup()
    return crashed


def _health(membership: Membership, ready: Callable[[], Awaitable[list[str]]]) -> aiohttp_web.Application:
    async def livez(_: aiohttp_web.Request) -> aiohttp_web.Response:
        return aiohttp_web.json_response({"status": "alive", "service": membership.app.conf.id})

    async def readyz(_: aiohttp_web.Request) -> aiohttp_web.Response:
        reasons = [] if membership.complete else ["the worker has not got its partitions yet"]
        reasons += await ready()
        status = "unavailable" if reasons else "ready"
        return aiohttp_web.json_response({"status": status, "reasons": reasons}, status=503 if reasons else 200)

    async def metrics(_: aiohttp_web.Request) -> aiohttp_web.Response:
        return aiohttp_web.Response(body=generate_latest(), content_type="text/plain", charset="utf-8")

    application = aiohttp_web.Application()
    application.add_routes(
        [
            aiohttp_web.get("/livez", livez),
            aiohttp_web.get("/readyz", readyz),
            aiohttp_web.get("/metrics", metrics),
        ]
    )
    return application


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
