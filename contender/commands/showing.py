"""How the commands show things: dates, versions and values in words, tables, and JSON for scripts."""

import getpass
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Column, Table
from rich.text import Text

from contender.commands.terminal import console, fail, visible

AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
By = Annotated[str, typer.Option("--by", help="Who makes the change; default: the user of this machine.")]
_VERSION_CHARACTERS = 12
_VERSION = re.compile(r"[0-9a-f]{64}")
_EMPTY: tuple[object, ...] = (None, "", [], {})


def short(version: str) -> str:
    """A version as it stands beside a name."""
    return version[:_VERSION_CHARACTERS]


def when(at: float | None) -> str:
    """A Unix time for people; a dash for none."""
    if at is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):  # a replay may bear any time
        return f"{at:g}"


def moment(text: str, option: str) -> float:
    """The Unix time that a number or an ISO date such as 2026-01-31T12:00 stands for; without a zone it is UTC.

    Raises:
        typer.Exit: with 1, where it is neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise fail(f"{option} {text}: give seconds since 1970, or a time such as 2026-01-31T12:00") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def worded(value: object) -> str:
    """A field's JSON value for people: versions shortened, and nothing as a dash."""
    if value in _EMPTY:
        return "-"
    if isinstance(value, str):
        return short(value) if _VERSION.fullmatch(value) else value
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {worded(part)}" for name, part in value.items() if part not in _EMPTY)
    if isinstance(value, list | tuple):
        return "; ".join(map(worded, value))
    return str(value)


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table whose cells are folded, never cut off."""
    shown = Table(*(Column(title, overflow="fold") for title in titles), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        shown.add_row(*(Text(visible(cell)) for cell in row))
    return shown


def say(*lines: str) -> None:
    """Print sentences."""
    console.print(visible("\n".join(lines), kept="\n"), soft_wrap=True)


def print_json(answer: Any) -> None:
    """Print an answer as one line of JSON."""
    typer.echo(msgspec.json.encode(answer).decode())


def person(named: str) -> str:
    """Who makes a change: the one who is named, else the user of this machine; empty where that has no name."""
    if named:
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return ""


def pair(text: str, option: str, example: str) -> tuple[str, str]:
    """Name and value of an option such as `plan=pro`.

    Raises:
        typer.Exit: with 1, where there is no equals sign.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise fail(f"{option} {text}: give {example}")
    return name, value


def number(text: str, option: str) -> float:
    """The number that an option spells.

    Raises:
        typer.Exit: with 1, where it is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise fail(f"{option} {text}: give a number such as 0.3") from error
