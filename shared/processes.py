"""How a service's processes run: its web process alone, or beside its worker."""

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from shared.connections import ConnectionLimits, bounded_config
from shared.draining import DrainingServer
from shared.guard import Admission, Guard
from shared.settings import ServiceName, Settings

FINISH_S = 5
_CHILD_STOP_S = 30  # beside its drain: longer than a web process, with its requests and its journal, or a worker takes


def run_web(app: FastAPI, settings: Settings, service: ServiceName, finish_s: int = FINISH_S) -> None:
    """Serve until SIGTERM, drain, finish what is in flight, and exit with 0.

    Args:
        app: the application.
        settings: its address, its limits, and how long it drains.
        service: which port it has.
        finish_s: longest wait for what is in flight once it listens no more.
    """
    # uvicorn raises the signal again once it has shut down; without this the process would die of it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    guard = Guard(app, Admission.of(settings))
    config = bounded_config(
        guard,
        ConnectionLimits.of(settings),
        host=settings.host,
        port=settings.port(service),
        timeout_graceful_shutdown=finish_s,
    )
    server = DrainingServer(config, guard, settings.drain_s)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


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
        sys.exit(_run_all(service, list(roles), settings.drain_s + _CHILD_STOP_S))
    else:
        sys.exit(f"unknown role {role}: expected {', '.join([*roles, 'all'])}")


def _run_all(service: ServiceName, roles: list[str], stop_s: float) -> int:
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
            codes = [wait_or_kill(child, stop_s) for child in children]
    return max(abs(code) for code in codes)


def wait_or_kill(child: "subprocess.Popen[bytes]", stop_s: float) -> int:
    """The exit code of a child that was asked to end, and is killed when it has not ended after so many seconds."""
    try:
        return child.wait(stop_s)
    except (
        subprocess.TimeoutExpired
    ):  # it must not outlive this process, whose successor needs its port and its journal
        child.kill()
        return child.wait()


def _code(child: "subprocess.Popen[bytes]") -> int | None:
    try:
        return child.wait(0.2)
    except subprocess.TimeoutExpired:
        return None
