"""`contender up`, `down`, `status` and `logs`; `contender.commands.stack` declares their options."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import typer
from rich.table import Table

from contender.commands.terminal import console, errors, fail, visible
from embedded import stack
from embedded.errors import EmbeddedError, format_size
from embedded.first_aid import advice
from embedded.log_files import OLDER
from embedded.process import answers_ok
from embedded.settings import StackSettings
from embedded.state import ProcessState, StackState, describe_late, runs
from embedded.usage import usage_by_part

FOLLOW_S = 0.3
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
            late = stack.start_detached(settings, progress) if detach else _run(settings, progress, spinner.stop)
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


def status() -> None:
    """Print the processes, the size of their data, and a sentence for each thing that is wrong."""
    settings = read_settings()
    try:
        state = stack.running(settings)
    except EmbeddedError as error:
        raise fail(error) from error
    all_ready = False
    if state is None:
        console.print("Nothing is running: start it with `contender up`.")
    else:
        all_ready = _print_processes(state)
        _print_usage(settings)
    for sentence in advice(settings, state):
        errors.print(visible(sentence), soft_wrap=True)
    if not all_ready:
        raise typer.Exit(1)


def logs(name: str | None, *, follow: bool, lines: int) -> None:
    """Print the last lines of one process's log, or of all; with `follow` also those that come."""
    settings = read_settings()
    known = sorted(settings.logs.glob("*.log"))
    paths = [path for path in known if name in (None, path.stem)]
    if not paths:
        names = ", ".join(path.stem for path in known) or "none yet"
        errors.print(f"There is no log{f' of {name}' if name else ''}; there are logs of: {names}.", soft_wrap=True)
        raise typer.Exit(1)
    positions = {path: _print_last(path, lines, titled=len(paths) > 1) for path in paths}
    while follow:
        for path, position in positions.items():
            positions[path] = _print_from(path, position)
        time.sleep(FOLLOW_S)


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


def _print_processes(state: StackState) -> bool:
    """Print the table of processes; whether all are ready."""
    table = Table("process", "pid", "port", "state", "restarts", "up for")
    all_ready = True
    for process in state.processes:
        condition = _condition(process)
        all_ready &= condition == "ready"
        uptime = f"{max(0.0, time.time() - process.created):.0f} s" if runs(process) else ""
        table.add_row(process.name, str(process.pid or ""), str(process.port), condition, str(process.restarts), uptime)
    console.print(table)
    return all_ready


def _condition(process: ProcessState) -> str:
    if not runs(process):
        wait_s = process.retry_at - time.time()
        return f"dead, next start in {wait_s:.0f} s" if wait_s > 0 else "dead"
    if process.name in ("kafka", "valkey"):
        return "ready" if process.ready else "not ready"
    if answers_ok("127.0.0.1", process.port, "/readyz"):
        return "ready"
    return f"not ready: {visible(process.progress)}" if process.progress else "not ready"


def _print_usage(settings: StackSettings) -> None:
    table = Table("data", "size", "limit")
    for part in usage_by_part(settings):
        table.add_row(part.name, format_size(part.size_bytes), part.limit)
    console.print(table)


def _print_last(path: Path, lines: int, *, titled: bool) -> int:
    """Print a log's last lines; the position in the file behind them."""
    if titled:
        console.rule(path.stem)
    text = path.read_bytes()
    last = text.decode(errors="replace").splitlines()
    older = path.with_name(path.name + OLDER)
    if len(last) < lines and older.exists():
        last = older.read_text(errors="replace").splitlines() + last
    for line in last[-lines:] if lines else []:
        console.print(visible(line, kept="\t"), soft_wrap=True)
    return len(text)


def _print_from(path: Path, position: int) -> int:
    """Print what a log holds from a position on; the position behind that."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size < position:  # the file was cut, and its lines are in the older part
                position = 0
            file.seek(position)
            text = file.read()
    except FileNotFoundError:  # removed with the data; the next start makes another
        return 0
    if text:
        console.print(visible(text.decode(errors="replace"), kept="\n\t"), end="", soft_wrap=True)
    return position + len(text)
