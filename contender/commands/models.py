"""`contender models register`, `list`, `show` and `promotions`: versions of models, from files on this machine."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contender.commands.calls import connected
from contender.commands.showing import AsJson, print_json, short, table
from contender.commands.terminal import console, errors, fail, visible
from contender.commands.versions import find_version
from contender.contracts.inference_service import VersionDetails, VersionList
from contender.contracts.tasks import TASKS

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(no_args_is_help=True, help="Register ready ONNX files, and look at what is registered.")
_TASKS = ", ".join(task.name for task in TASKS)


@app.command()
def register(
    model: Annotated[str, typer.Argument(help="The model's name; its first version becomes the champion.")],
    file: Annotated[Path, typer.Argument(help="The ONNX file.", exists=True, dir_okay=False)],
    *,
    sample: Annotated[Path, typer.Option(help="Sample rows: a .csv or .parquet file with a header.", exists=True)],
    label: Annotated[str, typer.Option(help="The sample's column with the true outcome; it is not an input.")] = "",
    task: Annotated[str, typer.Option(help=f"One of {_TASKS}; default: read from the file.")] = "",
    classes: Annotated[
        str, typer.Option(help="Labels of the probabilities, separated by commas; default: read from the file.")
    ] = "",
    source: Annotated[list[str] | None, typer.Option(help="COLUMN=view:feature, for each served column.")] = None,
    default: Annotated[list[str] | None, typer.Option(help="COLUMN=VALUE, which stands in for nulls.")] = None,
    description: Annotated[str, typer.Option(help="One sentence about the version.")] = "",
) -> None:
    """Register a ready ONNX file with sample rows: their columns are its inputs, by name or in their order."""
    rows = _read(sample)
    labels = None
    if label:
        if label not in rows:
            raise fail(f"{sample} has no column {label!r}; there are {', '.join(map(str, rows.columns))}")
        labels = rows.pop(label)
    options: dict[str, Any] = {"description": description}
    if task:
        options["task"] = task
    if classes:
        options["classes"] = [_value(text) for text in classes.split(",")]
    options["sources"] = dict(_pair(text, "--source") for text in source or [])
    options["defaults"] = {name: _value(text) for name, text in (_pair(text, "--default") for text in default or [])}
    with connected() as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are printed below
        version = client.register(model, file, rows, labels, **options)
    inputs = ", ".join(f"{column.name} ({column.dtype})" for column in version.inputs)
    lines = [f"Registered {model} {version.version}{', the champion' if version.champion else ''}."]
    lines += [f"  {version.task}{f' of {version.classes}' if version.classes else ''}, inputs: {inputs}"]
    console.print(visible("\n".join(lines), kept="\n"), soft_wrap=True)
    for message in version.warnings:
        errors.print(visible(f"Note: {message}"), soft_wrap=True)


@app.command("list")
def list_models(*, as_json: AsJson = False) -> None:
    """List every version of every model."""
    with connected() as client:
        versions = client.versions()
    if as_json:
        print_json(VersionList(versions))
        return
    if not versions:
        console.print("No model is registered.")
        return
    titles = ("model", "version", "task", "alias", "description")
    rows = [
        (known.model, short(known.version), known.task, "champion" if known.champion else "", known.description)
        for known in versions
    ]
    console.print(table(titles, rows))


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Argument(help="A version, or its first characters; default: the champion.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Show a version: its inputs, its classes, and how it treats nulls and unseen categories."""
    with connected() as client:
        shown = client.version(model, find_version(client, model, version, least=1).version)
    if as_json:
        print_json(shown)
        return
    console.print(visible(_page(shown), kept="\n"), soft_wrap=True)


def _page(version: VersionDetails) -> str:
    manifest: Any = version.manifest
    behaviour = manifest.get("behaviour", {})
    lines = [f"{version.model} {version.version}{'  champion' if version.champion else ''}"]
    lines += [version.description] if version.description else []
    lines += [f"{version.task}, classes {version.classes}", "inputs"]
    for column in version.inputs:
        behaviours = "; ".join(f"{case} {outcome}" for case, outcome in behaviour.get(column.name, {}).items())
        default = "" if column.default is None else f", default {column.default!r}"
        lines.append(f"  {column.name}: {column.dtype} from {column.source}{default}; {behaviours}")
    return "\n".join([*lines, *(f"Note: {message}" for message in manifest.get("warnings", []))])


def _read(sample: Path) -> "pd.DataFrame":
    try:
        import pandas as pd  # noqa: PLC0415 - the extra `notebook`, which other commands do without

        if sample.suffix == ".parquet":
            import polars as pl  # noqa: PLC0415 - reads Parquet without pyarrow

            frame = pl.read_parquet(sample)
            return pd.DataFrame({name: frame[name].to_list() for name in frame.columns})
        return pd.read_csv(sample)
    except ImportError as error:
        raise fail(f"{error.name} is missing: pip install 'contender-ml[notebook]'") from error
    except (OSError, ValueError) as error:
        raise fail(f"{sample} can't be read: {error}") from error


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise fail(f"{option} {text}: give COLUMN=VALUE")
    return name, value


def _value(text: str) -> Any:
    """The number or boolean that a text spells, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text
