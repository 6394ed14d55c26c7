"""Log files of bounded size, and the supervisor's own lines, on a disk that may be full."""

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

OLDER = ".1"
"""Suffix of the file that holds a log's older part."""


class SupervisorLog:
    """Lines about the stack's processes, each with its time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: str) -> None:
        """Append a line; on a full disk it is lost."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        with suppress(OSError), self._path.open("a") as file:
            file.write(f"{time} {line}\n")


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
