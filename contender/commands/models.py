"""`contender models register`, `list` and `show`: versions of models, from files on this machine."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from contender.client import Client
from contender.commands.terminal import console, errors, visible
from contender.errors import ContenderError

if TYPE_CHECKING:
    import pandas as pd

_NAME_CHARACTERS = 12
app = typer.Typer(no_args_is_help=True, help="Register ready ONNX files, and look at what is registered.")
AsJson = Annotated[bool, typer.Option("--json", help="As the service answers it.")]


@app.command()
def register(
    model: Annotated[str, typer.Argument(help="The model's name; its first version becomes the champion.")],
    file: Annotated[Path, typer.Argument(help="The ONNX file.", exists=True, dir_okay=False)],
    *,
    sample: Annotated[Path, typer.Option(help="Rows of it, a .csv or .parquet file with a header.", exists=True)],
    label: Annotated[str, typer.Option(help="The sample's column that holds what is true; it is no input.")] = "",
    task: Annotated[str, typer.Option(help="binary, multiclass or regression; default: found out.")] = "",
    classes: Annotated[str, typer.Option(help="Labels of the probabilities, with commas; default: found out.")] = "",
    source: Annotated[list[str] | None, typer.Option(help="COLUMN=view:feature, for each served column.")] = None,
    default: Annotated[list[str] | None, typer.Option(help="COLUMN=VALUE, which stands in for nulls.")] = None,
    description: Annotated[str, typer.Option(help="One sentence on what the version is.")] = "",
) -> None:
    """Register a ready ONNX file with rows of its own: their columns are its inputs, by name or in order."""
    rows = _read(sample)
    labels = None
    if label:
        if label not in rows:
            raise _failed(f"{sample} has no column {label!r}; there are {', '.join(map(str, rows.columns))}")
        labels = rows.pop(label)
    options: dict[str, Any] = {"description": description}
    if task:
        options["task"] = task
    if classes:
        options["classes"] = [_value(one) for one in classes.split(",")]
    options["sources"] = dict(_pair(one, "--source") for one in source or [])
    options["defaults"] = {name: _value(text) for name, text in (_pair(one, "--default") for one in default or [])}
    try:
        with Client() as client, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are printed below
            version = client.register(model, file, rows, labels, **options)
    except ContenderError as error:
        raise _failed(str(error)) from error
    inputs = ", ".join(f"{column.name} ({column.dtype})" for column in version.inputs)
    told = [f"Registered {model} {version.version}{', the champion' if version.champion else ''}."]
    told += [f"  {version.task}{f' of {version.classes}' if version.classes else ''}, inputs: {inputs}"]
    console.print(visible("\n".join(told), kept="\n"), soft_wrap=True)
    for message in version.warnings:
        errors.print(visible(f"Note: {message}"), soft_wrap=True)


@app.command("list")
def list_models(*, as_json: AsJson = False) -> None:
    """List every version of every model."""
    versions = _versions()
    if as_json:
        typer.echo(json.dumps({"versions": versions}))
        return
    if not versions:
        console.print("Nothing is registered.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("model", "version", "task", "alias", "description"):
        table.add_column(title, overflow="fold")
    for one in versions:
        alias = "champion" if one.get("champion") else ""
        cells = (one["model"], one["version"][:_NAME_CHARACTERS], one["task"], alias, one.get("description", ""))
        table.add_row(*(Text(visible(str(cell))) for cell in cells))
    console.print(table)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Argument(help="A version, or how it begins; default: the champion.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Show a version: its inputs, its classes, and what it does with nulls and unseen categories."""
    candidates = [one for one in _versions() if one["model"] == model]
    matches = [
        one for one in candidates if (one["version"].startswith(version) if version else one.get("champion", False))
    ]
    if len(matches) != 1:
        what = f"{len(matches)} versions that begin with {version!r}" if candidates else "no version at all"
        raise _failed(f"model {model} has {what}")
    details = _call(lambda client: client.version(model, matches[0]["version"]))
    if as_json:
        typer.echo(json.dumps(details))
        return
    console.print(visible(_page(details), kept="\n"), soft_wrap=True)


def _page(version: dict[str, Any]) -> str:
    manifest = version.get("manifest", {})
    behaviour = manifest.get("behaviour", {})
    lines = [f"{version['model']} {version['version']}{'  champion' if version.get('champion') else ''}"]
    lines += [version["description"]] if version.get("description") else []
    lines += [f"{version['task']}, classes {version.get('classes', [])}", "inputs"]
    for column in version["inputs"]:
        told = "; ".join(f"{what} {outcome}" for what, outcome in behaviour.get(column["name"], {}).items())
        default = f", default {column['default']!r}" if "default" in column else ""
        lines.append(f"  {column['name']}: {column['dtype']} from {column.get('source', 'request')}{default}; {told}")
    return "\n".join([*lines, *(f"Note: {message}" for message in manifest.get("warnings", []))])


def _versions() -> list[dict[str, Any]]:
    versions: list[dict[str, Any]] = _call(lambda client: client.versions())
    return versions


def _call(read: Callable[[Client], Any]) -> Any:
    """What a client reads, as JSON has it."""
    try:
        with Client() as client:
            return msgspec.to_builtins(read(client))
    except ContenderError as error:
        raise _failed(str(error)) from error


def _read(sample: Path) -> "pd.DataFrame":
    try:
        import pandas as pd  # noqa: PLC0415 - the extra `notebook`, which other commands do without

        if sample.suffix == ".parquet":
            import polars as pl  # noqa: PLC0415 - reads Parquet without pyarrow

            frame = pl.read_parquet(sample)
            return pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
        return pd.read_csv(sample)
    except ImportError as error:
        raise _failed(f"{error.name} is missing: pip install 'contender-ml[notebook]'") from error
    except (OSError, ValueError) as error:
        raise _failed(f"{sample} can't be read: {error}") from error


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise _failed(f"{option} {text}: give COLUMN=VALUE")
    return name, value


def _value(text: str) -> Any:
    """The number or truth value that a text is, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _failed(message: str) -> typer.Exit:
    errors.print(visible(message), soft_wrap=True)
    return typer.Exit(1)
