"""`contender up`, `down`, `status` and `logs`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contender.commands.terminal import visible
from contender.embedded import stack
from contender.embedded.errors import EmbeddedError
from contender.embedded.process import answers_ok
from contender.embedded.settings import StackSettings
from contender.embedded.state import ProcessState, StackState, runs

FOLLOW_S = 0.3
INTERRUPTED = 130
"""The exit code of what a Ctrl-C has ended, as shells have it."""

# What is printed is text: markup in a name, a reason or a log line is none.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False)


def up(
    *, detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False
) -> None:
    """Start Kafka, Valkey, the four services and their workers on this machine."""
    settings = read_settings()
    with console.status("starting") as status:

        def progress(text: str) -> None:
            status.update(text)

        def ready() -> None:
            status.stop()
            console.print(_addresses(settings))
            console.print("Ctrl-C stops everything.")

        try:
            if detach:
                stack.start_detached(settings, progress)
                status.stop()
                console.print(_addresses(settings))
            else:
                stack.run(settings, progress, ready)
        except EmbeddedError as error:
            status.stop()
            raise fail(error) from error
        except KeyboardInterrupt as interruption:
            status.stop()
            errors.print("Interrupted: nothing was left running.")
            raise typer.Exit(INTERRUPTED) from interruption


def down(*, purge: Annotated[bool, typer.Option("--purge", help="Remove the data as well.")] = False) -> None:
    """Stop the stack; with --purge remove its data, but not the cached downloads."""
    settings = read_settings()
    try:
        with console.status("stopping"):
            ran = stack.stop(settings, purge=purge)
    except EmbeddedError as error:
        raise fail(error) from error
    console.print("Stopped." if ran else "Nothing was running.")
    if purge:
        console.print(f"Removed {settings.data_folder}.", soft_wrap=True)


def status() -> None:
    """Show each process of the stack; exit with 1 when not all are ready."""
    settings = read_settings()
    try:
        state = stack.running(settings)
    except EmbeddedError as error:
        raise fail(error) from error
    if state is None:
        console.print("Nothing is running: start it with `contender up`.")
        raise typer.Exit(1)
    ready = _print_status(state)
    for process in state.processes:
        if process.given_up:
            errors.print(visible(process.given_up), soft_wrap=True)
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


def _addresses(settings: StackSettings) -> str:
    return (
        f"Contender is ready: predictions on {settings.url('ab_router')}, results on {settings.url('feedback_service')}"
    )


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
    if process.given_up:
        return "given up"
    if not runs(process):
        return "dead"
    if process.name in ("kafka", "valkey"):
        return "ready"
    return "ready" if answers_ok("127.0.0.1", process.port, "/readyz") else "not ready"


def _print_tail(path: Path, lines: int, *, titled: bool) -> int:
    if titled:
        console.rule(path.stem)
    text = path.read_bytes()
    for line in text.decode(errors="replace").splitlines()[-lines:] if lines else []:
        console.print(visible(line, kept="\t"), soft_wrap=True)
    return len(text)


def _print_from(path: Path, position: int) -> int:
    with path.open("rb") as file:
        file.seek(position)
        text = file.read()
    if text:
        console.print(visible(text.decode(errors="replace"), kept="\n\t"), end="", soft_wrap=True)
    return position + len(text)
