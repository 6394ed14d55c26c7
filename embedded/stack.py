"""`contender up`, `down` and `status` as functions: the whole stack from settings."""

import os
import shutil
import time
from collections.abc import Callable

from embedded.errors import EmbeddedError
from embedded.folder import UMASK, exclusive, is_held
from embedded.settings import StackSettings
from embedded.stages import stages
from embedded.state import StackState, read, runs, terminate
from embedded.supervisor import Progress, Supervisor, stop_on_signals

STOP_S = 60
POLL_S = 0.1


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
    check_home(settings)
    supervisor = Supervisor(settings, stages(settings, progress), report)
    stop_on_signals(supervisor)
    supervisor.run(progress, on_ready)


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
    if state is not None:
        terminate(state.supervisor)
        end = time.monotonic() + STOP_S
        while any(runs(process) for process in [state.supervisor, *state.processes]):
            if time.monotonic() > end:
                raise EmbeddedError(f"The stack has not ended after {STOP_S} s: see {settings.supervisor_log}.")
            time.sleep(POLL_S)
    if purge:
        shutil.rmtree(settings.data_folder, ignore_errors=True)
    return state is not None


def check_home(settings: StackSettings) -> None:
    """Raise before any work when the data folder can't be written, or another stack runs on it."""
    with exclusive(settings):
        pass
