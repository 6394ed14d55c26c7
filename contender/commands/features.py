"""`contender features check`, `list`, `show` and `new`: definitions on this machine, without any service."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from contender.commands import remote
from contender.commands.describe import facts, overview
from contender.commands.feature_template import TEMPLATE
from contender.commands.render import page
from contender.commands.stack import console, errors
from contender.commands.validate import trial_faults
from contender.features.aggregations import NAME
from contender.features.catalogue import Catalogue
from contender.features.errors import FeatureError

MOST_NAME = 40
"""Letters of a name that others are made from: those may have 63."""

app = typer.Typer(no_args_is_help=True, help="Look at feature definitions, check them, begin new ones, apply them.")
for command in (
    remote.apply,
    remote.retire,
    remote.rebuild,
    remote.consistency,
    remote.status,
):
    app.command()(command)

Module = Annotated[
    str,
    typer.Argument(
        envvar="CONTENDER_FEATURES",
        metavar="[MODULE_OR_FILE]",
        help="A module such as my_project.features, or the path of a .py file.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
USUAL = "examples.flights.features"
MOST_REFERENCE = 24
"""Columns that references are sure of: what lies beyond is folded."""

WIDE = 120
"""Columns from which a reference has a line to itself."""


@app.command()
def check(module: Module = USUAL) -> None:
    """Load definitions and tell file, line and fix of everything that is wrong with them."""
    catalogue = load(module)
    if faults := list(trial_faults(catalogue)):
        raise _fail("\n".join(faults))
    features = sum(1 for _ in overview(catalogue))
    counts = [
        _counted(len(catalogue.entities), "entity", "entities"),
        _counted(len(catalogue.sources), "source", "sources"),
        _counted(len(catalogue.views), "view", "views"),
        _counted(len(catalogue.on_demand), "on-demand view", "on-demand views"),
        _counted(features, "feature", "features"),
        _counted(len(catalogue.services), "feature service", "feature services"),
    ]
    console.print(f"{module} is in order: {', '.join(counts)}.", markup=False, soft_wrap=True)


@app.command("list")
def list_features(module: Module = USUAL, *, as_json: AsJson = False) -> None:
    """List every feature: what it is, over which window, of whom, from where."""
    found = list(overview(load(module)))
    if as_json:
        for one in found:
            typer.echo(json.dumps(one))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("reference", "kind", "window", "keys", "source", "owner", "description"):
        table.add_column(title, overflow="fold")
    # A narrow terminal has the two halves of a reference below each other, so that both can be read.
    split = console.width < WIDE
    told = ""
    for one in found:
        reference = one["reference"].replace(":", ":\n ") if split else one["reference"]
        description = "" if one["description"] == told else one["description"]
        told = one["description"]
        cells = (reference, one["kind"], one["window"], "\n".join(one["entity_keys"]), one["source"], one["owner"])
        table.add_row(*map(Text, (*cells, description)))
    longest = max(len(half) for one in found for half in one["reference"].split(":"))
    table.columns[0].min_width = min(longest + 1, MOST_REFERENCE)
    console.print(table)


@app.command()
def show(
    reference: Annotated[str, typer.Argument(help="A view, a feature view:feature, a source, an entity or a service.")],
    module: Module = USUAL,
    *,
    as_json: AsJson = False,
) -> None:
    """Show everything about a view, a feature, a source, an entity or a feature service."""
    catalogue = load(module)
    try:
        found = facts(catalogue, reference)
    except FeatureError as error:
        raise _fail(str(error)) from error
    for one in found:
        if as_json:
            typer.echo(json.dumps(one))
        else:
            console.print(page(one, _here))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What the events are, such as payments.")],
    *,
    path: Annotated[Path | None, typer.Option(help="The file to write; default: NAME.py.")] = None,
) -> None:
    """Write a small file of definitions to begin with."""
    if not NAME.fullmatch(name) or len(name) > MOST_NAME:
        raise _fail(
            f"{name!r} can't be a name: it takes lower-case letters, digits and single underscores, at most {MOST_NAME}"
        )
    file = path or Path(f"{name}.py")
    if file.suffix != ".py":
        raise _fail(f"{file} must end in .py, so that it can be loaded")
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(TEMPLATE.substitute(name=name, path=file))
    except FileExistsError as error:
        raise _fail(f"{file} is there already: take another name, or another --path") from error
    except OSError as error:
        raise _fail(f"{file} can't be written: {error.strerror}") from error
    steps = (
        f"Wrote {file}. Next:",
        f"  contender features check {file}",
        f"  contender features show {name}_activity {file}",
        f"  export CONTENDER_FEATURES={file.resolve()}    # then `contender up` serves them",
    )
    console.print("\n".join(steps), markup=False, soft_wrap=True)


def load(module: str) -> Catalogue:
    """The catalogue of a module or file; where there is none, what is wrong is printed.

    Raises:
        typer.Exit: with 1, it can't be loaded.
    """
    try:
        with _imports_from_here():
            return Catalogue.load(module)
    except FeatureError as error:
        raise _fail(str(error)) from error


@contextmanager
def _imports_from_here() -> Iterator[None]:
    """The working directory can be imported from, as `python -m` has it for the services."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _fail(message: str) -> typer.Exit:
    errors.print(_here(message), markup=False, soft_wrap=True)
    return typer.Exit(1)


def _here(text: str) -> str:
    """The text with paths below the working directory as people write them there."""
    return text.replace(f"{Path.cwd()}{os.sep}", "")


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
