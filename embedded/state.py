"""The state file that `status` and `down` read: process ids with their start times."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from embedded.errors import EmbeddedError

START_TOLERANCE_S = 5.0
"""Start times are counted from the boot time, which moves with corrections of the clock: by a second in days."""


class ProcessState(msgspec.Struct, frozen=True):
    """One process.

    `created` is its start time, because the system may give its process id to another process later. `cause` says how
    it ended the last time, `retry_at` (seconds since the Unix epoch) when a dead process is started again, `progress`
    how far a process that is not ready has come.
    """

    name: str
    port: int
    pid: int | None = None
    created: float = 0.0
    restarts: int = 0
    ready: bool = False
    progress: str = ""
    cause: str = ""
    retry_at: float = 0.0


class StackState(msgspec.Struct, frozen=True):
    """The supervisor and its processes.

    `ready` says that the start is over: all that answers requests is ready, and late workers are not waited for.
    `failure` says why a failed stack ended.
    """

    supervisor: ProcessState
    processes: list[ProcessState] = []
    ready: bool = False
    failure: str = ""


def describe_start(state: StackState) -> str:
    """The processes that a starting stack waits for, and how far each has come."""
    waiting = [process for process in state.processes if process.created and not process.ready]
    if not waiting:
        return "starting"
    serving = any(process.name == "ab_router" and process.ready for process in state.processes)
    parts = []
    for process in waiting:
        progress = process.progress or (f"restart {process.restarts}, it {process.cause}" if process.cause else "")
        parts.append(f"{process.name} ({progress})" if progress else process.name)
    return f"{'predictions are served; ' if serving else ''}waiting for {', '.join(parts)}"


def describe_late(state: StackState) -> list[str]:
    """A sentence for each process that is not ready: why, and what happens meanwhile."""
    return [
        f"{process.name} is not ready (it {process.cause or 'shows no progress'}): it is started again until it is "
        f"ready, and predictions are served meanwhile; `contender logs {process.name}` has more."
        for process in state.processes
        if not process.ready
    ]


def own_state(name: str) -> ProcessState:
    """This process."""
    return ProcessState(name, 0, os.getpid(), created(os.getpid()))


def created(pid: int) -> float:
    """When a process started, in seconds since the Unix epoch; 0 when it does not run."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def runs(process: ProcessState) -> bool:
    """Whether the process still runs: the same, not another with its id."""
    if process.pid is None:
        return False
    try:
        running = psutil.Process(process.pid)
        is_same = abs(running.create_time() - process.created) < START_TOLERANCE_S
        return bool(is_same and running.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def terminate(process: ProcessState) -> None:
    """Ask a process to end, unless it has ended."""
    with suppress(psutil.NoSuchProcess):
        if process.pid is not None:
            psutil.Process(process.pid).terminate()


def read(path: Path) -> StackState | None:
    """The state as last written; None when there is no file, or a damaged one.

    Raises:
        EmbeddedError: the file can't be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackState)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise EmbeddedError(
            f"{path} can't be read ({error.strerror}), so the processes of the stack are unknown: make it readable."
        ) from error


def write(path: Path, state: StackState) -> None:
    """Replace the state in one step, so that a reader never sees half of it.

    Raises:
        OSError: the disk is full or failing; the earlier state stays.
    """
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(state))
    temporary.replace(path)
