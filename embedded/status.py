"""`contender status`: the processes, the size of their data, and what is wrong."""

import time

import typer
from rich.table import Table

from contender.commands.terminal import console, errors, fail, visible
from embedded import stack
from embedded.commands import read_settings
from embedded.errors import EmbeddedError, format_size
from embedded.first_aid import advice
from embedded.process import answers_ok
from embedded.settings import StackSettings
from embedded.state import ProcessState, StackState, runs
from embedded.usage import usage_by_part


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


def _print_processes(state: StackState) -> bool:
    """Print the table of processes; return whether all are ready."""
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
