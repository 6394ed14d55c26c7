"""Log files of bounded size, and the supervisor's own lines, on a disk that may be full."""

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from embedded.errors import format_size

OLDER = ".1"
"""Suffix of the file that holds a log's older part."""

FULL_BYTES = 8 * 1000**2
"""A disk with fewer free bytes counts as full, until it has twice as many."""


class SupervisorLog:
    """Lines about the stack's processes, each with its time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: str) -> None:
        """Append a line; on a full disk it is lost."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        with suppress(OSError), self._path.open("a") as file:
            file.write(f"{time} {line}\n")


class DiskWatch:
    """Knows whether the disk of the data is full; on a full disk it gives up the older parts of the logs."""

    def __init__(self, data: Path, logs: Path) -> None:
        self.is_full = False
        self._data = data
        self._logs = logs

    def look(self) -> str:
        """Look at the disk; return a line for the log when it has become full, or has room again."""
        try:
            free = shutil.disk_usage(self._data).free
        except OSError:  # the folder was removed
            return ""
        was_full = self.is_full
        self.is_full = free < FULL_BYTES or (was_full and free <= 2 * FULL_BYTES)
        if free < FULL_BYTES:
            drop_older(self._logs)
        if self.is_full and not was_full:
            return f"the disk is full ({format_size(free)} free): nothing is counted until there is room again"
        return f"the disk has room again ({format_size(free)} free)" if was_full and not self.is_full else ""


def bound_logs(folder: Path, limit_bytes: int) -> None:
    """Move the content of a log of more than half the limit to its older part, replacing that.

    Processes append to their logs, so they go on at the beginning of the same file.
    """
    for log in folder.glob("*.log"):
        with suppress(OSError):  # the next round tries again
            if log.stat().st_size > limit_bytes // 2:
                _move(log)


def drop_older(folder: Path) -> None:
    """Remove the older parts of all logs."""
    for older in folder.glob(f"*.log{OLDER}"):
        with suppress(OSError):
            older.unlink()


def _move(log: Path) -> None:
    older = log.with_name(log.name + OLDER)
    with log.open("r+b") as file:
        try:
            with older.open("wb") as target:
                shutil.copyfileobj(file, target)
        except OSError:  # no room for an older part; the log is cut all the same
            older.unlink(missing_ok=True)
        file.truncate(0)
