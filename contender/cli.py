"""The command line `contender`."""

from pathlib import Path
from typing import Annotated

import typer

from contender.commands import features, models, parked, stack
from contender.own_packages import import_own
from embedded.folder import release

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


def _print_version(asked: bool) -> None:  # noqa: FBT001 - as typer hands over an option's value
    if asked:
        typer.echo(f"contender {release()}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Tests machine-learning models against each other on live traffic."""


@app.command()
def demo(
    *,
    flights: Annotated[int, typer.Option(min=1, max=166_000, help="How many flights to replay, from July on.")] = 6000,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.")] = None,
) -> None:
    """Put two models against each other on the flights of 2013, and leave everything running."""
    import_own("examples")
    from examples.flights.demo import run  # noqa: PLC0415 - the example's packages are an extra of their own

    raise typer.Exit(run(flights, json))


if __name__ == "__main__":
    app()
