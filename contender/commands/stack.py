"""`contender up`, `down`, `status` and `logs`."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contender.commands.terminal import visible
from embedded import stack
from embedded.errors import EmbeddedError, size
from embedded.log_files import OLDER
from embedded.process import answers_ok
from embedded.settings import StackSettings
from embedded.state import ProcessState, StackState, describe_late, runs
from embedded.usage import disk_remark, parts_of

FOLLOW_S = 0.3
TOLD_EVERY_S = 15.0
"""How often a start that is not watched on a terminal says what it waits for."""

INCOMPLETE = 3
"""The exit code of `up --detach` where the stack runs and a worker does not."""

USAGE = 2
INTERRUPTED = 130
"""The exit code of what a Ctrl-C has ended, as shells have it."""

# What is printed is text: markup in a name, a reason or a log line is none.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)


def up(
    *, detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False
) -> None:
    """Start Kafka, Valkey, the four services and their workers on this machine.

    With --detach the exit code is 3 where predictions are served and a worker is not ready.
    """
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


def down(
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the data as well; asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove the data without asking.")] = False,
) -> None:
    """Stop the stack; with --purge remove its data, but not the cached downloads."""
    settings = read_settings()
    if purge and not yes:
        _confirm_purge(settings)
    try:
        with console.status("stopping"):
            ran = stack.stop(settings, purge=purge)
    except EmbeddedError as error:
        raise fail(error) from error
    console.print("Stopped." if ran else "Nothing was running.")
    if purge:
        console.print(f"Removed {settings.data_folder}.", soft_wrap=True)


def status() -> None:
    """Show each process of the stack and what its data take; exit with 1 when not all are ready."""
    settings = read_settings()
    try:
        state = stack.running(settings)
    except EmbeddedError as error:
        raise fail(error) from error
    if state is None:
        console.print("Nothing is running: start it with `contender up`.")
        raise typer.Exit(1)
    ready = _print_status(state)
    _print_usage(settings)
    for process in state.processes:
        if process.cause:
            errors.print(visible(_history(process)), soft_wrap=True)
    if remark := disk_remark(settings):
        errors.print(remark, soft_wrap=True)
    if not ready:
        raise typer.Exit(1)


def logs(
    name: Annotated[str | None, typer.Argument(help="A process as `status` names it; default: all.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
) -> None:
    """Show the last lines of the processes' logs."""
    settings = read_settings()
    found = sorted(settings.logs.glob("*.log")) if name is None else [settings.logs / f"{name}.log"]
    present = [path for path in found if path.exists()]
    if not present:
        known = ", ".join(path.stem for path in sorted(settings.logs.glob("*.log"))) or "none yet"
        errors.print(f"There is no log{f' of {name}' if name else ''}; logs are there of: {known}.", soft_wrap=True)
        raise typer.Exit(1)
    positions = {path: _print_tail(path, lines, titled=len(present) > 1) for path in present}
    while follow:
        for path, position in positions.items():
            positions[path] = _print_from(path, position)
        time.sleep(FOLLOW_S)


def read_settings() -> StackSettings:
    """The stack's settings; where one can't be, a sentence is printed.

    Raises:
        typer.Exit: with 1, a variable has a value that can't be.
    """
    try:
        return StackSettings.load()
    except EmbeddedError as error:
        raise fail(error) from error


def fail(error: Exception) -> typer.Exit:
    """Print one sentence and end with 1."""
    errors.print(visible(str(error)), soft_wrap=True)
    return typer.Exit(1)


class _Progress:
    """Shows what a start waits for: in the spinner's line, or now and then as a line where there is no terminal."""

    def __init__(self, update: Callable[[str], None]) -> None:
        self._update = update
        self._told_at = time.monotonic()

    def __call__(self, text: str) -> None:
        self._update(visible(text))
        if not console.is_terminal and time.monotonic() - self._told_at > TOLD_EVERY_S:
            self._told_at = time.monotonic()
            console.print(visible(text), soft_wrap=True)


def _run(settings: StackSettings, progress: _Progress, stop_spinner: Callable[[], None]) -> list[str]:
    def on_ready() -> None:
        stop_spinner()
        state = stack.running(settings)
        _print_ready(settings, describe_late(state) if state else [])
        console.print("Ctrl-C stops everything.")

    def tell(line: str) -> None:
        with suppress(OSError):  # the output may be a file on a disk that is full
            console.print(visible(line), soft_wrap=True)

    stack.run(settings, progress, on_ready, tell)
    return []


def _print_ready(settings: StackSettings, late: list[str]) -> None:
    console.print(
        f"Contender is ready: predictions on {settings.url('ab_router')}, results on {settings.url('feedback_service')}"
    )
    for sentence in late:
        errors.print(visible(sentence), soft_wrap=True)


def _confirm_purge(settings: StackSettings) -> None:
    """Go on only where a person says so.

    Raises:
        typer.Exit: with 2 where nobody can be asked, with 1 where the answer is no.
    """
    if not sys.stdin.isatty():
        errors.print(
            f"--purge removes {settings.data_folder} for good, and there is no terminal to ask on: "
            "add --yes to remove it without being asked.",
            soft_wrap=True,
        )
        raise typer.Exit(USAGE)
    total = size(sum(part.size_bytes for part in parts_of(settings)))
    if not typer.confirm(
        f"Remove {settings.data_folder} ({total}: models, experiments, all that was counted) for good?"
    ):
        errors.print("Nothing was stopped or removed.")
        raise typer.Exit(1)


def _print_status(state: StackState) -> bool:
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


def _history(process: ProcessState) -> str:
    times = f"{process.restarts} time{'s' if process.restarts != 1 else ''}"
    return f"{process.name} was started again {times}; the last time it {process.cause}."


def _print_usage(settings: StackSettings) -> None:
    table = Table("data", "size", "limit")
    for part in parts_of(settings):
        table.add_row(part.name, size(part.size_bytes), part.limit)
    console.print(table)


def _print_tail(path: Path, lines: int, *, titled: bool) -> int:
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
    try:
        with path.open("rb") as file:
            if path.stat().st_size < position:  # it has begun anew, and what it held is its older part
                position = 0
            file.seek(position)
            text = file.read()
    except FileNotFoundError:  # removed with the data; a next start makes another
        return 0
    if text:
        console.print(visible(text.decode(errors="replace"), kept="\n\t"), end="", soft_wrap=True)
    return position + len(text)
