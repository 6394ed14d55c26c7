"""What runs, as a file that `status`, `logs` and `down` read: process ids with their start times."""

from pathlib import Path

import msgspec
import psutil

from contender.embedded.errors import EmbeddedError

START_TOLERANCE_S = 0.05


class ProcessState(msgspec.Struct, frozen=True):
    """One process. `created` is its start time: a process id alone may have been given to another since."""

    name: str
    port: int
    pid: int | None = None
    created: float = 0.0
    restarts: int = 0
    given_up: str = ""


class StackState(msgspec.Struct, frozen=True):
    """The supervisor and its processes. `failure` says why the stack ended, when it failed."""

    supervisor: ProcessState
    processes: list[ProcessState] = []
    ready: bool = False
    failure: str = ""


def created(pid: int) -> float:
    """When a process started, in seconds since the Unix epoch; 0 when there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def runs(process: ProcessState) -> bool:
    """Whether that very process still runs."""
    if process.pid is None:
        return False
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.created) < START_TOLERANCE_S
        return bool(same and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def read(path: Path) -> StackState | None:
    """The state as last written; None when nothing was started here, or the file is damaged.

    Raises:
        EmbeddedError: the file can't be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackState)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise EmbeddedError(f"{path} can't be read ({error.strerror}): it says what runs.") from error


def write(path: Path, state: StackState) -> None:
    """Replace the state in one step, so that a reader never sees half of it."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(state))
    temporary.replace(path)
