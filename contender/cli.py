"""The command line `contender`."""

from typing import Annotated

import typer

from contender.commands import champions, experiments, features, installation, models, score, stack
from contender.contracts.release import release

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tests machine-learning models against each other on live traffic.",
)
for command in (
    stack.up,
    stack.down,
    stack.status,
    stack.logs,
    stack.parked,
    stack.demo,
    score.score,
    champions.promote,
    champions.rollback,
    installation.export,
    installation.apply,
):
    app.command()(command)
models.app.command()(champions.promotions)
app.add_typer(features.app, name="features")
app.add_typer(models.app, name="models")
app.add_typer(experiments.app, name="experiment")


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer passes an option's value by position
    if requested:
        typer.echo(f"contender {release()}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tests machine-learning models against each other on live traffic."""


if __name__ == "__main__":
    app()
