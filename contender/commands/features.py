"""`contender features check`, `list`, `show` and `new`: work on definitions without any service."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from contender.commands import remote
from contender.commands.describe import describe, overview
from contender.commands.feature_template import TEMPLATE
from contender.commands.render import render
from contender.commands.terminal import console, errors
from contender.commands.validate import validate
from contender.extras import MissingExtraError
from contender.features import Catalogue, FeatureError
from contender.features.limits import NAME

MOST_NAME = 40
"""Letters of a name that longer ones are made from: those may have 63."""

app = typer.Typer(no_args_is_help=True, help="Check, list, show, begin and apply feature definitions.")
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
"""Columns reserved for references; longer ones are folded."""

WIDE = 120
"""Columns from which a reference fits on one line."""


@app.command()
def check(module: Module = USUAL) -> None:
    """Load definitions and report what is wrong with them, with file, line and fix."""
    catalogue = load(module)
    try:
        faults = list(validate(catalogue))
    except MissingExtraError as error:
        raise _fail(str(error)) from error
    if faults:
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
    console.print(f"{module} is valid: {', '.join(counts)}.", markup=False, soft_wrap=True)


@app.command("list")
def list_features(module: Module = USUAL, *, as_json: AsJson = False) -> None:
    """List every feature with its kind, window, keys, source and owner."""
    features = list(overview(load(module)))
    if as_json:
        for feature in features:
            typer.echo(json.dumps(feature))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("reference", "kind", "window", "keys", "source", "owner", "description"):
        table.add_column(title, overflow="fold")
    # In a narrow terminal the view and the feature of a reference stand one below the other.
    split = console.width < WIDE
    previous = ""
    for feature in features:
        reference = feature["reference"].replace(":", ":\n ") if split else feature["reference"]
        description = "" if feature["description"] == previous else feature["description"]
        previous = feature["description"]
        keys = "\n".join(feature["entity_keys"])
        cells = (reference, feature["kind"], feature["window"], keys, feature["source"], feature["owner"], description)
        table.add_row(*map(Text, cells))
    longest = max(len(half) for feature in features for half in feature["reference"].split(":"))
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
        matches = describe(catalogue, reference)
    except FeatureError as error:
        raise _fail(str(error)) from error
    for match in matches:
        if as_json:
            typer.echo(json.dumps(match))
        else:
            console.print(render(match, _here))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The kind of events, such as payments.")],
    *,
    path: Annotated[Path | None, typer.Option(help="The file to write; default: NAME.py.")] = None,
) -> None:
    """Write a small file of definitions to start from."""
    if not NAME.fullmatch(name) or len(name) > MOST_NAME:
        raise _fail(
            f"{name!r} can't be a name; use at most {MOST_NAME} lower-case letters, digits and single underscores"
        )
    file = path or Path(f"{name}.py")
    if file.suffix != ".py":
        raise _fail(f"{file} must end in .py, so that it can be loaded")
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(TEMPLATE.substitute(name=name, path=file))
    except FileExistsError as error:
        raise _fail(f"{file} exists already; choose another name or another --path") from error
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
    """The catalogue of a module or file; prints what is wrong where it can't be loaded.

    Raises:
        typer.Exit: with 1, where it can't be loaded.
    """
    try:
        return Catalogue.load(module)
    except FeatureError as error:
        raise _fail(str(error)) from error


def _fail(message: str) -> typer.Exit:
    errors.print(_here(message), markup=False, soft_wrap=True)
    return typer.Exit(1)


def _here(text: str) -> str:
    """The text with relative paths for those below the working directory."""
    return text.replace(f"{Path.cwd()}{os.sep}", "")


def _counted(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
