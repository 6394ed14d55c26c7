"""`contender features check`, `list`, `show` and `new`: work on definitions without any service."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from contender.commands import feature_template, remote
from contender.commands.describe import describe, overview
from contender.commands.render import render, render_list
from contender.commands.terminal import console, errors
from contender.commands.validate import validate
from contender.extras import MissingExtraError
from contender.features import Catalogue, FeatureError

app = typer.Typer(no_args_is_help=True, help="Write, check, list, show and apply feature definitions.")
for command in (
    feature_template.new,
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
    console.print(render_list(features, console.width))


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
    """The text with paths below the working directory made relative."""
    return text.replace(f"{Path.cwd()}{os.sep}", "")


def _counted(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
