"""`contender score`: the rows of a Parquet file, scored through the router."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from contender.commands.calls import call, connected
from contender.commands.terminal import console, fail, visible
from contender.contracts.feature_service import SHOW_DEFINITIONS
from contender.contracts.limits import ROWS
from contender.contracts.values import REQUEST
from contender.errors import ContenderError

_WAIT_S = 300.0


def score(
    source: Annotated[Path, typer.Argument(help="The Parquet file with the rows.", metavar="IN")],
    target: Annotated[Path, typer.Argument(help="The Parquet file to write.", metavar="OUT")],
    *,
    model: Annotated[str, typer.Option(help="The model that scores; each row's unit is assigned as always.")],
    unit: Annotated[str, typer.Option(help="The column of units.")] = "unit",
    entity: Annotated[list[str] | None, typer.Option(help="KEY=COLUMN: the column of a join key.")] = None,
    context: Annotated[list[str] | None, typer.Option(help="A column that is recorded as context.")] = None,
    time: Annotated[str | None, typer.Option(help="The column of the rows' times; default: now.")] = None,
    batch_rows: Annotated[int, typer.Option(min=1, max=ROWS, help="Rows of a call.")] = ROWS,
    calls: Annotated[int, typer.Option(min=1, max=64, help="Calls under way at the same time.")] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Score the rows of a Parquet file through the router. The same command again continues a run that was ended.

    It exits with 1 where all rows were refused.
    """
    if target.exists() and not overwrite:
        raise fail(f"{target} is there already: --overwrite replaces it")
    entities = dict(_pair(text) for text in entity or [])
    with connected() as client:
        from contender import scoring  # noqa: PLC0415 - needs the extra `notebook`

        names, total = scoring.describe(source)
        versions = [version for version in client.versions() if version.model == model]
        if not versions:
            raise fail(f"there is no model {model}")
        has_features = any(column.source != REQUEST for version in versions for column in version.inputs)
        views = call(SHOW_DEFINITIONS).views if has_features else []
        columns = scoring.columns_of(
            names, versions, views, unit=unit, time=time, context=context or [], entities=entities
        )
        bar = Progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
        with bar:
            task = bar.add_task("scoring", total=total)
            scored = scoring.score_file(
                client,
                model,
                source,
                target,
                columns,
                batch_rows=batch_rows,
                calls=calls,
                wait_s=_WAIT_S,
                progress=lambda rows: bar.advance(task, rows),
                waiting=_once(bar.console),
            )
    refused = f", of which {scored.refused:,} were refused ({scored.first_error})" if scored.refused else ""
    console.print(visible(f"{scored.rows:,} rows{refused}: {target}"), soft_wrap=True)
    if scored.refused and scored.refused == scored.rows:
        raise typer.Exit(1)


def _once(screen: Console) -> Callable[[ContenderError], None]:
    """Reports once that the router is waited for: it may come back, and the address may be wrong."""
    reported: list[ContenderError] = []

    def report(error: ContenderError) -> None:
        if not reported:
            reported.append(error)
            screen.print(visible(f"{error}: it is tried again for {_WAIT_S / 60:g} minutes"), soft_wrap=True)

    return report


def _pair(text: str) -> tuple[str, str]:
    key, equals, column = text.partition("=")
    if not (key and equals and column):
        raise fail(f"--entity {text}: give KEY=COLUMN, such as customer=customer_id")
    return key, column
