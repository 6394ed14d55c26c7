"""The data folder: one supervisor holds it, only its user may read it, and its format is known to this release."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from contender.contracts.release import release
from embedded.errors import AlreadyRunningError, DiskFullError, EmbeddedError, NewerDataError
from embedded.settings import StackSettings

FORMAT = 1
"""Grows when a release writes what the release before it can't read."""

PRIVATE = 0o700
UMASK = 0o077
_FORMAT_FILE = "format.json"


@contextmanager
def exclusive(settings: StackSettings) -> Iterator[None]:
    """Hold the data folder, so that no other supervisor runs on it.

    Raises:
        AlreadyRunningError: another supervisor holds the folder.
        DiskFullError: its disk has too little room.
        NewerDataError: a later release has written the folder.
        EmbeddedError: the folder can't be written.
    """
    folder = settings.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        if (free := shutil.disk_usage(folder).free) < settings.free_bytes:
            raise DiskFullError(folder, free, settings.free_bytes)
        lock = _open_lock(folder)
    except OSError as error:
        raise EmbeddedError(
            f"{folder} can't be written ({error.strerror}): set CONTENDER_HOME to another folder."
        ) from error
    with lock:
        _check_format(folder)
        yield


def is_held(settings: StackSettings) -> bool:
    """Whether a supervisor holds the data folder."""
    try:
        _open_lock(settings.data_folder).close()
    except AlreadyRunningError:
        return True
    except OSError:  # the folder is missing or can't be written, so nothing was started on it
        return False
    return False


def take_over(folder: Path) -> None:
    """Mark the folder with this release's format, and make it and all in it private to its user.

    Raises:
        EmbeddedError: the folder can't be written.
    """
    try:
        (folder / _FORMAT_FILE).write_text(json.dumps({"format": FORMAT, "release": release()}))
    except OSError as error:
        raise EmbeddedError(f"{folder} can't be written ({error.strerror}): free some space there.") from error
    _make_private(folder)
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            _make_private(Path(parent, name))


def _make_private(path: Path) -> None:
    with suppress(OSError):  # removed meanwhile, or owned by another user: the folder above decides who may enter
        mode = path.stat(follow_symlinks=False).st_mode
        if mode & UMASK and not path.is_symlink():
            path.chmod(mode & PRIVATE)


def _check_format(folder: Path) -> None:
    path = folder / _FORMAT_FILE
    try:
        marker = json.loads(path.read_bytes())
        number, writer = int(marker["format"]), str(marker["release"])
    except FileNotFoundError:  # a new folder, or a release that wrote no marker yet
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmbeddedError(
            f"{path} can't be read, so the release that has written the data folder is unknown: restore the file, or "
            "set CONTENDER_HOME to another folder."
        ) from error
    if number > FORMAT:
        raise NewerDataError(folder, writer, number, FORMAT)


def _open_lock(folder: Path) -> TextIO:
    lock = (folder / "stack.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise AlreadyRunningError(folder) from error
    return lock
