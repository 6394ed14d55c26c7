"""Starts the stack in the background and waits until it is ready."""

import os
import subprocess
import sys
import time

from embedded.errors import DiedError, EmbeddedError
from embedded.folder import PRIVATE, UMASK, exclusive
from embedded.settings import StackSettings, import_environment
from embedded.stack import POLL_S, STOP_S, check_home
from embedded.stages import stages
from embedded.state import StackState, describe_late, describe_start, read
from embedded.supervisor import Progress

SUPERVISOR_STALL_S = 60
"""A supervisor that writes no state for so long while it starts the stack is stuck."""


def start_detached(settings: StackSettings, progress: Progress) -> list[str]:
    """Start the stack in the background; return, once it is ready, a sentence for each worker that is not.

    Raises:
        EmbeddedError: the stack can't start; the message says what to do.
    """
    check_home(settings)
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
        return describe_late(wait_ready(settings, supervisor, progress))
    except BaseException:  # an interruption too: nothing that was started here stays behind
        _end(supervisor)
        raise


def wait_ready(
    settings: StackSettings, supervisor: "subprocess.Popen[bytes]", progress: Progress = lambda _: None
) -> StackState:
    """The state of a supervisor's stack once it is ready.

    Raises:
        EmbeddedError: the supervisor has ended or is stuck; the message says why.
    """
    log = settings.supervisor_log
    written, seen_at = 0, time.monotonic()
    while not ((state := _state_of(settings, supervisor)) and state.ready):
        if supervisor.poll() is not None:
            if (state := _state_of(settings, supervisor)) and state.failure:
                raise EmbeddedError(state.failure)
            check_home(settings)  # another start may have been quicker
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
