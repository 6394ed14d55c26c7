"""`contender features apply`, `rebuild`, `consistency` and `status`: what a running feature service is asked."""

import json
import os
import time
from typing import Annotated, Any

import httpx
import typer
from rich.table import Column, Table
from rich.text import Text

from contender.client import Client
from contender.commands.stack import console, errors
from contender.commands.terminal import visible
from contender.errors import ContenderError
from contender.features.durations import format_duration

_TIMEOUT_S = 120.0
_POLL_S = 0.3
_NAME_WIDTH = 16
_TOLD_WHOLE = 100
AsJson = Annotated[bool, typer.Option("--json", help="As the service answers it.")]


def apply(*, wait_s: Annotated[float, typer.Option(help="How long to wait until everything is filled.")] = 600) -> None:
    """Let the service read its definitions again; what has changed its meaning becomes a version of its own."""
    added = _call("POST", "/v1/definitions/apply", {})["added"]
    if not added:
        console.print("Nothing has changed its meaning.")
    else:
        console.print(f"New versions: {', '.join(added)}. They are filled from history while the stream goes on.")
    _wait(wait_s)


def rebuild(
    *, wait_s: Annotated[float, typer.Option(help="How long to wait until everything is filled.")] = 600
) -> None:
    """Fill all features anew from history files as they are now, and from Kafka; the stream goes on."""
    generation = _call("POST", "/v1/definitions/rebuild", {})["generation"]
    console.print(f"Rebuild number {generation} has begun.")
    _wait(wait_s)


def retire(
    versions: Annotated[list[str], typer.Argument(help="Versions of views, such as origin_delays@1.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Even where a registered model is trained on it.")] = False,
) -> None:
    """Serve and feed old versions of views no longer, for good; what they take in Redis is freed."""
    if not force:
        for model in _call("GET", "/v1/models", service="inference_service")["versions"]:
            needed = {column["source"].partition(":")[0] for column in model["inputs"]}
            if found := sorted(needed.intersection(versions)):
                raise _failed(
                    f"{model['model']} {model['version']} is trained on {found[0]}, and would be served its defaults; "
                    "nothing has changed. --force retires it all the same."
                )
    retired = _call("POST", "/v1/definitions/retire", {"versions": versions})["retired"]
    console.print(f"Retired: {', '.join(retired)}. What they take in Redis is freed within minutes.")


def consistency(
    *,
    sample: Annotated[float | None, typer.Option(help="Share of the entities to look at.", min=0.0, max=1.0)] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what is served with what history says; exit with 1 where they differ."""
    query = "" if sample is None else f"?sample={sample}"
    found = _call("POST", f"/v1/consistency{query}", {})
    reports = found["features"]
    if as_json:
        typer.echo(json.dumps(found))
    else:
        table = _table("feature", "compared", "mismatch", "missing", "extra", "mean\nerror", "largest\nerror")
        for one in reports:
            rates = [f"{one[kind]:.2%}" for kind in ("mismatch", "missing", "extra")]
            sizes = [f"{one[kind]:.3g}" for kind in ("error_mean", "error_max")]
            table.add_row(visible(one["feature"]), f"{one['compared']:,}", *rates, *sizes)
        console.print(table)
    if any(one["mismatch"] or one["missing"] or one["extra"] for one in reports):
        raise typer.Exit(1)


def status(*, as_json: AsJson = False) -> None:
    """Show how fresh and how full each view is; exit with 1 where one is behind its objective, or can't be filled."""
    found = _call("GET", "/v1/features/status")
    if as_json:
        typer.echo(json.dumps(found))
    else:
        table = _table(
            "view", "state", "newest\nevent", "lag\np50", "lag\np99", "objective", "events\n/s", "late", "entities"
        )
        for one in found["views"]:
            table.add_row(
                visible(one["label"]),
                "filled" if one["complete"] else "filling",
                _age(one["newest_event_age_s"]),
                *(format_duration(one[name]) for name in ("lag_p50_s", "lag_p99_s", "objective_s")),
                f"{one['events_per_s']:,.0f}" if one["events_per_s"] >= _TOLD_WHOLE else f"{one['events_per_s']:.1f}",
                f"{one['late']:,}",
                f"{one['entities']:,}",
            )
        console.print(table)
        console.print(f"Parked: {found['parked']:,} events. Workers: {found['workers']}.")
        if found["waiting_s"]:
            console.print(
                f"The oldest record that waits to be merged was sent {format_duration(found['waiting_s'])} ago."
            )
    if not found["workers"]:
        errors.print("No worker runs: events wait in Kafka until one does.", soft_wrap=True)
    for why in found["unfilled"]:
        errors.print(Text(f"Some features can't be filled: {visible(why)}"), soft_wrap=True)
    if not found["workers"] or found["unfilled"] or any(one["behind"] for one in found["views"]):
        raise typer.Exit(1)


def _table(first: str, *others: str) -> Table:
    """A table for narrow terminals, too: what names the rows is folded, never cut off, and numbers stay whole."""
    columns = [Column(one, no_wrap=True, justify="right") for one in others]
    return Table(
        Column(first, overflow="fold", min_width=_NAME_WIDTH), *columns, box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _wait(wait_s: float) -> None:
    """Show how many versions are filled until all are."""
    until = time.monotonic() + wait_s
    with console.status("filling") as shown:
        while True:
            views = _call("GET", "/v1/definitions")["views"]
            missing = [view["label"] for view in views if not view["complete"]]
            if not missing:
                break
            shown.update(f"filling {', '.join(missing)}")
            if time.monotonic() > until:
                raise _failed(f"Not filled after {wait_s:g} s: {', '.join(missing)}; it goes on in the service.")
            time.sleep(_POLL_S)
    console.print(f"All {len(views)} versions are filled.")


def _call(method: str, path: str, body: Any = None, *, service: str = "feature_service") -> Any:
    try:
        with Client(os.environ.get("CONTENDER_URL")) as client:
            url = client.feature_url if service == "feature_service" else client.inference_url
    except ContenderError as error:
        raise _failed(str(error)) from error
    try:
        answer = httpx.request(method, url + path, json=body, timeout=_TIMEOUT_S)
    except httpx.HTTPError as error:
        name = service.replace("_", " ")
        raise _failed(f"The {name} on {url} does not answer: is `contender up` running?") from error
    if answer.is_error:
        raise _failed(str(answer.json().get("detail", answer.text)))
    return answer.json()


def _failed(message: str) -> typer.Exit:
    errors.print(visible(message), soft_wrap=True)
    return typer.Exit(1)


def _age(age_s: float | None) -> str:
    return "none yet" if age_s is None else f"{format_duration(age_s)} ago"
