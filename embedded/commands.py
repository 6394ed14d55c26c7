"""`contender up` and `down`; `contender.commands.stack` declares their options."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress

import typer

from contender.commands.terminal import console, errors, fail, visible
from embedded import stack
from embedded.detached import start_detached
from embedded.errors import EmbeddedError, format_size
from embedded.settings import StackSettings
from embedded.state import describe_late
from embedded.usage import usage_by_part

PROGRESS_LINE_S = 15.0
"""How often a start without a terminal prints what it waits for."""

INCOMPLETE = 3
"""Exit code of `up --detach` when the stack runs and a worker is not ready."""

USAGE = 2
INTERRUPTED = 130
"""Exit code after a Ctrl-C, as shells have it."""


def up(*, detach: bool) -> None:
    """Start the stack; with `detach` return once it is ready."""
    settings = read_settings()
    with console.status("starting") as spinner:
        progress = _Progress(spinner.update)
        try:
            late = start_detached(settings, progress) if detach else _run(settings, progress, spinner.stop)
        except EmbeddedError as error:
            spinner.stop()
            raise fail(error) from error
        except KeyboardInterrupt as interruption:
            spinner.stop()
            errors.print("Interrupted: nothing was left running.")
            raise typer.Exit(INTERRUPTED) from interruption
    if detach:
        _print_ready(settings, late)
    if late:
        raise typer.Exit(INCOMPLETE)


def down(*, purge: bool, yes: bool) -> None:
    """Stop the stack; with `purge` remove its data, after a question unless `yes`."""
    settings = read_settings()
    if purge and not yes:
        _confirm_purge(settings)
    try:
        with console.status("stopping"):
            was_running = stack.stop(settings, purge=purge)
    except EmbeddedError as error:
        raise fail(error) from error
    console.print("Stopped." if was_running else "Nothing was running.")
    if purge:
        console.print(f"Removed {settings.data_folder}.", soft_wrap=True)


def read_settings() -> StackSettings:
    """The stack's settings.

    Raises:
        typer.Exit: with 1, a variable has an invalid value; a sentence that names it has been printed.
    """
    try:
        return StackSettings.load()
    except EmbeddedError as error:
        raise fail(error) from error


class _Progress:
    """Shows what a start waits for: in the spinner's line, or without a terminal as a line now and then."""

    def __init__(self, update: Callable[[str], None]) -> None:
        self._update = update
        self._printed_at = time.monotonic()

    def __call__(self, text: str) -> None:
        self._update(visible(text))
        if not console.is_terminal and time.monotonic() - self._printed_at > PROGRESS_LINE_S:
            self._printed_at = time.monotonic()
            console.print(visible(text), soft_wrap=True)


def _run(settings: StackSettings, progress: _Progress, stop_spinner: Callable[[], None]) -> list[str]:
    def on_ready() -> None:
        stop_spinner()
        state = stack.running(settings)
        _print_ready(settings, describe_late(state) if state else [])
        console.print("Ctrl-C stops everything.")

    def report(line: str) -> None:
        with suppress(OSError):  # the output may be a file on a full disk
            console.print(visible(line), soft_wrap=True)

    stack.run(settings, progress, on_ready, report)
    return []


def _print_ready(settings: StackSettings, late: list[str]) -> None:
    console.print(
        f"Contender is ready: predictions on {settings.url('ab_router')}, results on {settings.url('feedback_service')}"
    )
    for sentence in late:
        errors.print(visible(sentence), soft_wrap=True)


def _confirm_purge(settings: StackSettings) -> None:
    """Ask whether to remove the data.

    Raises:
        typer.Exit: with 2 when there is no terminal to ask on, with 1 when the answer is no.
    """
    if not sys.stdin.isatty():
        errors.print(
            f"--purge removes {settings.data_folder} for good, and there is no terminal to ask on: "
            "add --yes to remove it without being asked.",
            soft_wrap=True,
        )
        raise typer.Exit(USAGE)
    total = format_size(sum(part.size_bytes for part in usage_by_part(settings)))
    if not typer.confirm(
        f"Remove {settings.data_folder} ({total}: models, experiments, all that was counted) for good?"
    ):
        errors.print("Nothing was stopped or removed.")
        raise typer.Exit(1)
