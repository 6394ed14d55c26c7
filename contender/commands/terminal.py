"""Output of the commands: consoles, and text of services, records and logs made safe to show."""

import re

import typer
from rich.console import Console

# Markup in a name, a reason or a log line is shown as text.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
# C0, C1, lone surrogates, line separators, and what changes the direction of text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def visible(text: str, *, kept: str = "") -> str:
    """The text without colours; each control character but those in `kept` becomes a replacement character."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in kept else _REPLACEMENT, _COLOUR.sub("", text))


def fail(error: Exception | str) -> typer.Exit:
    """Print the error as one sentence, and return an exit with status 1 to raise."""
    errors.print(visible(str(error)), soft_wrap=True)
    return typer.Exit(1)
