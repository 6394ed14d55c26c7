"""`contender up`, `down`, `status`, `logs`, `parked` and `demo`.

The stack is a distribution of its own: its folder goes first on the path, and its modules run the commands.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from contender.commands.terminal import fail
from contender.extras import MissingExtraError, needs_extra

DISTRIBUTION = "contender-ml-stack"


def up(
    *, detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False
) -> None:
    """Start Kafka, Valkey, the four services and their workers on this machine.

    With --detach the exit code is 3 when predictions are served and a worker is not ready.
    """
    _import_from_stack("embedded.commands", "up").up(detach=detach)


def down(
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the data as well; asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove the data without asking.")] = False,
) -> None:
    """Stop the stack; with --purge remove its data, but not the cached downloads."""
    _import_from_stack("embedded.commands", "down").down(purge=purge, yes=yes)


def status() -> None:
    """Show each process of the stack, the size of its data, and what is wrong; exit with 1 unless all are ready."""
    _import_from_stack("embedded.status", "status").status()


def logs(
    name: Annotated[str | None, typer.Argument(help="A process as `status` names it; default: all.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing lines as they are written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines to show.")] = 20,
) -> None:
    """Show the last lines of the processes' logs."""
    _import_from_stack("embedded.logs", "logs").logs(name, follow=follow, lines=lines)


def parked(
    *,
    topic: Annotated[str | None, typer.Option(help="Only records of this topic.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the records that no worker could read, with the reason."""
    _import_from_stack("embedded.parked", "parked").parked(topic=topic, as_json=as_json)


def demo(
    *,
    flights: Annotated[
        int, typer.Option(min=1, max=119_000, help="Most flights to replay, from July on; it ends with the verdict.")
    ] = 20_000,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.")] = None,
) -> None:
    """Compare two models on the flights of 2013, and leave everything running."""
    raise typer.Exit(_import_from_stack("examples.flights.demo", "demo").run(flights, json))


def stack_folder() -> Path | None:
    """The folder that holds `services`, `shared`, `embedded` and `examples`; None when it is not installed."""
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415 - slow, and only this function needs it

    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "stack" / "pyproject.toml").is_file():
        return checkout
    try:
        return Path(str(distribution(DISTRIBUTION).locate_file("contender_stack"))).resolve()
    except PackageNotFoundError:
        return None


def _import_from_stack(module: str, command: str) -> ModuleType:
    """Import a module of the stack, whatever packages of the same names the working directory has.

    Raises:
        typer.Exit: with 1, when the extra `stack` is not installed.
    """
    folder = stack_folder()
    purpose = f"`contender {command}`"
    if folder is None:
        raise fail(MissingExtraError(purpose, "stack", DISTRIBUTION))
    if sys.path[0] != str(folder):
        sys.path.insert(0, str(folder))
    try:
        with needs_extra("stack", purpose):
            return import_module(module)
    except MissingExtraError as error:
        raise fail(error) from error
