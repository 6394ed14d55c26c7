"""`contender features apply`, `retire`, `rebuild`, `consistency` and `status`: calls to a running feature service."""

import time
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Column, Table
from rich.text import Text

from contender.commands.calls import call
from contender.commands.terminal import console, errors, fail, visible
from contender.contracts import feature_service as contract
from contender.contracts.feature_ref import FeatureRef
from contender.contracts.inference_service import LIST_VERSIONS
from contender.features import format_duration

_POLL_S = 0.3
_NAME_WIDTH = 16
_WHOLE_FROM = 100
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
WaitS = Annotated[float, typer.Option(help="Seconds to wait until everything is filled.")]


def apply(*, wait_s: WaitS = 600) -> None:
    """Load the definitions again in the service; each changed view becomes a new version, which is filled."""
    if added := call(contract.APPLY_DEFINITIONS).added:
        console.print(f"New versions: {', '.join(added)}. They are filled from history while the stream goes on.")
    else:
        console.print("No definition changed, so there is no new version.")
    _wait_until_filled(wait_s)


def rebuild(*, wait_s: WaitS = 600) -> None:
    """Fill all features again, from the history files as they are now and from Kafka; the stream goes on."""
    console.print(f"Rebuild number {call(contract.REBUILD_FEATURES).generation} has begun.")
    _wait_until_filled(wait_s)


def retire(
    versions: Annotated[list[str], typer.Argument(help="Versions of views, such as origin_delays@1.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Retire a version even if a registered model was trained on it.")
    ] = False,
) -> None:
    """Permanently stops serving and filling old versions of views, and frees their memory in Redis."""
    if not force:
        for model in call(LIST_VERSIONS, service="inference_service").versions:
            views = {FeatureRef.parse(column.source).label for column in model.inputs}
            if used := sorted(views.intersection(versions)):
                raise fail(
                    f"{model.model} {model.version} was trained on {used[0]}, and would be served its defaults; "
                    "nothing has been retired. --force retires it anyway."
                )
    retired = call(contract.RETIRE_VERSIONS, body=contract.Retirement(versions)).retired
    console.print(f"Retired: {', '.join(retired)}. Their memory in Redis is freed within minutes.")


def consistency(
    *,
    sample: Annotated[float | None, typer.Option(help="Share of the entities to compare.", min=0.0, max=1.0)] = None,
    as_json: AsJson = False,
) -> None:
    """Compare served values with history; exit with 1 where they differ."""
    report = call(contract.CHECK_CONSISTENCY, query={} if sample is None else {"sample": sample})
    if as_json:
        _print_json(report)
    else:
        table = _table("feature", "compared", "mismatch", "missing", "extra", "mean\nerror", "largest\nerror")
        for feature in report.features:
            rates = [f"{rate:.2%}" for rate in (feature.mismatch, feature.missing, feature.extra)]
            sizes = [f"{error:.3g}" for error in (feature.error_mean, feature.error_max)]
            table.add_row(visible(feature.feature), f"{feature.compared:,}", *rates, *sizes)
        console.print(table)
    if any(feature.mismatch or feature.missing or feature.extra for feature in report.features):
        raise typer.Exit(1)


def status(*, as_json: AsJson = False) -> None:
    """Show how fresh and how full each view is; exit with 1 where one is behind its objective, or can't be filled."""
    answer = call(contract.SHOW_STATUS)
    if as_json:
        _print_json(answer)
    else:
        table = _table("view", "state", "newest\nevent", "lag", "objective", "events\n/s", "late", "entities")
        for view in answer.views:
            table.add_row(*map(visible, _status_cells(view)))
        console.print(table)
        console.print(f"Parked: {answer.parked:,} events. Workers: {answer.workers}.")
        if answer.waiting_s:
            console.print(
                f"The oldest record that waits to be merged was sent {format_duration(answer.waiting_s)} ago."
            )
    if not answer.workers:
        errors.print("No worker runs: events wait in Kafka until one does.", soft_wrap=True)
    for reason in answer.unfilled:
        errors.print(Text(f"Some features can't be filled: {visible(reason)}"), soft_wrap=True)
    if not answer.workers or answer.unfilled or any(view.behind for view in answer.views):
        raise typer.Exit(1)


def _status_cells(view: contract.ViewStatus) -> list[str]:
    age_s, rate = view.newest_event_age_s, view.events_per_s
    return [
        view.label,
        "filled" if view.complete else "filling",
        "none yet" if age_s is None else f"{format_duration(age_s)} ago",
        format_duration(view.lag_s),
        format_duration(view.objective_s),
        f"{rate:,.0f}" if rate >= _WHOLE_FROM else f"{rate:.1f}",
        f"{view.late:,}",
        "-" if view.entities is None else f"{view.entities:,}",
    ]


def _table(first: str, *others: str) -> Table:
    """A table for narrow terminals, too: the first column is folded, never cut off, and numbers stay whole."""
    columns = [Column(title, no_wrap=True, justify="right") for title in others]
    return Table(
        Column(first, overflow="fold", min_width=_NAME_WIDTH), *columns, box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _wait_until_filled(wait_s: float) -> None:
    """Show which versions are being filled until all are filled."""
    until = time.monotonic() + wait_s
    with console.status("filling") as shown:
        while True:
            views = call(contract.SHOW_DEFINITIONS).views
            missing = [view.label for view in views if not view.complete]
            if not missing:
                break
            shown.update(f"filling {', '.join(missing)}")
            if time.monotonic() > until:
                raise fail(f"Not filled after {wait_s:g} s: {', '.join(missing)}; the service goes on filling them.")
            time.sleep(_POLL_S)
    console.print(f"All {len(views)} versions are filled.")


def _print_json(answer: Any) -> None:
    typer.echo(msgspec.json.encode(answer).decode())
