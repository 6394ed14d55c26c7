"""`contender experiment`: its commands, and what an experiment would take by the record of the model's champion."""

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from contender.commands import experiment_changes as changes
from contender.commands import experiment_new
from contender.commands import experiment_views as views
from contender.commands.calls import call
from contender.commands.terminal import console, fail, visible
from contender.contracts.feedback_service import PLAN_EXPERIMENT, Plan

app = typer.Typer(no_args_is_help=True, help="Plan, declare, run and look at experiments.")
app.command("list")(views.list_experiments)
for command in (
    experiment_new.new,
    views.show,
    views.readiness,
    changes.start,
    changes.ramp,
    changes.pause,
    changes.stop,
    changes.restart,
    changes.promote,
    views.history,
    views.diff,
):
    app.command()(command)


@app.command()
def plan(
    *,
    model: Annotated[str, typer.Option(help="The model whose newest experiment with matured rows is the record.")],
    metric: Annotated[str, typer.Option(help="The metric that decides, such as log_loss.")],
    effect: Annotated[float, typer.Option(help="How much better the challenger is, in the metric's own unit.")] = 0.0,
    shares: Annotated[
        str, typer.Option(help="Of the variants, the champion's first, separated by commas.")
    ] = "0.5,0.5",
    alpha: Annotated[float, typer.Option(help="The probability of a wrong verdict, all looks together.")] = 0.05,
    power: Annotated[float, typer.Option(help="The probability of a verdict to plan for, beside the median.")] = 0.8,
    hypothesis: Annotated[str, typer.Option(help="superiority, non-inferiority or no difference.")] = "superiority",
    margin: Annotated[float, typer.Option(help="The margin of the hypothesis.")] = 0.0,
    cycle_days: Annotated[int | None, typer.Option(help="Days of a cycle, 0: none; default: the record's.")] = None,
    window_s: Annotated[float | None, typer.Option(help="Seconds a label may take; default: the record's.")] = None,
    exploration_share: Annotated[float | None, typer.Option(help="Share of hidden labels that are seen.")] = None,
    hidden_share: Annotated[float | None, typer.Option(help="Share of rows whose label is hidden.")] = None,
    standard_deviation: Annotated[
        float | None, typer.Option(help="Of the metric's value of a row; with --rows-per-day no record is needed.")
    ] = None,
    rows_per_day: Annotated[float | None, typer.Option(help="Answered rows in a day; default: the record's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")] = False,
) -> None:
    """Say how many rows and days a verdict takes, and which N* suits, from the record of the model's champion."""
    try:
        parts = [float(part) for part in shares.split(",")]
    except ValueError as error:
        raise fail(f"--shares {shares}: give numbers separated by commas, such as 0.9,0.1") from error
    body = {
        "model": model,
        "metric": metric,
        "effect": effect,
        "shares": parts,
        "alpha": alpha,
        "power": power,
        "hypothesis": hypothesis,
        "margin": margin,
        "cycle_days": cycle_days,
        "window_s": window_s,
        "exploration_share": exploration_share,
        "hidden_share": hidden_share,
        "standard_deviation": standard_deviation,
        "rows_per_day": rows_per_day,
    }
    planned = call(PLAN_EXPERIMENT, body=body, service="feedback_service")
    if as_json:
        typer.echo(msgspec.json.encode(planned).decode())
        return
    console.print(visible("\n".join(planned.sentences), kept="\n"), soft_wrap=True)
    console.print()
    console.print(_table(planned, power))


def _table(planned: Plan, power: float) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("a verdict in")
    for title in ("rows", "days"):
        table.add_column(title, justify="right")
    for share, rows, days in (
        ("half of the experiments", planned.rows, planned.days),
        (f"{power:.0%} of them", planned.rows_at_power, planned.days_at_power),
    ):
        cells = (share, "-" if rows is None else f"{rows:,}", "-" if days is None else f"{days:,.1f}")
        table.add_row(*map(Text, cells))
    return table
