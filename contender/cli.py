"""The command line `contender`."""

from pathlib import Path
from typing import Annotated

import typer

from contender.commands import features, models, parked, stack

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tests machine-learning models against each other on live traffic.",
)
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(stack.logs)
app.command()(parked.parked)
app.add_typer(features.app, name="features")
app.add_typer(models.app, name="models")


@app.command()
def demo(
    *,
    flights: Annotated[int, typer.Option(min=1, max=166_000, help="How many flights to replay, from July on.")] = 6000,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.")] = None,
) -> None:
    """Put two models against each other on the flights of 2013, and leave everything running."""
    from examples.flights.demo import run  # noqa: PLC0415 - the example's packages are an extra of their own

    raise typer.Exit(run(flights, json))


if __name__ == "__main__":
    app()
