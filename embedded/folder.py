"""The data folder: held by one supervisor, readable by its user alone, and of a format that this release knows."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

from embedded.errors import AlreadyRunningError, DiskFullError, EmbeddedError, NewerDataError
from embedded.settings import StackSettings

FORMAT = 1
"""Grows when a release writes what the one before it can't read."""

PRIVATE = 0o700
UMASK = 0o077
_FORMAT_FILE = "format.json"


@contextmanager
def exclusive(settings: StackSettings) -> Iterator[None]:
    """Hold the data folder, so that no other supervisor runs on it.

    Raises:
        AlreadyRunningError: another one holds it.
        DiskFullError: its disk has too little room.
        NewerDataError: a later release has written it.
        EmbeddedError: it can't be written.
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
    except OSError:  # there is no folder, or it can't be written: nobody has started anything there
        return False
    return False


def take_over(folder: Path) -> None:
    """Mark the folder with this release's format, and take away what others may read or write in it.

    Raises:
        EmbeddedError: it can't be written.
    """
    try:
        (folder / _FORMAT_FILE).write_text(json.dumps({"format": FORMAT, "release": release()}))
    except OSError as error:
        raise EmbeddedError(f"{folder} can't be written ({error.strerror}): free some space there.") from error
    _make_private(folder)
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            _make_private(Path(parent, name))


def release() -> str:
    """The installed version of Contender."""
    try:
        return version("contender")
    except PackageNotFoundError:  # run from its source, without an installation
        return "unknown"


def _make_private(path: Path) -> None:
    with suppress(OSError):  # gone meanwhile, or of another user: who may enter the folder above is decided there
        mode = path.stat(follow_symlinks=False).st_mode
        if mode & UMASK and not path.is_symlink():
            path.chmod(mode & PRIVATE)


def _check_format(folder: Path) -> None:
    path = folder / _FORMAT_FILE
    try:
        found = json.loads(path.read_bytes())
        number, writer = int(found["format"]), str(found["release"])
    except FileNotFoundError:  # new, or of a release before there was such a file
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmbeddedError(f"{path} can't be read: it says which release has written the data folder.") from error
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
