"""The features' page: how fresh and how full each view is, server-rendered, under a strict content policy."""

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from contender.features.durations import format_duration
from services.feature_service.health import ViewStatus
from services.feature_service.store.protocol import StoreUnavailableError
from services.feature_service.telling import tell_status
from shared.errors import Unavailable

router = APIRouter(include_in_schema=False)
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}
NO_WORKER = "No worker runs: events wait in Kafka until one does."
_HEAD = ("view", "state", "newest event", "lag p50", "lag p99", "objective", "events/s", "late", "entities")


@router.get("/")
async def show_features(request: Request) -> HTMLResponse:
    """How every view is doing."""
    try:
        found = await tell_status(request.state.definitions, request.state.clock.now())
    except StoreUnavailableError as error:
        raise Unavailable(str(error)) from error
    return HTMLResponse(page(found), headers=_HEADERS)


def page(found: dict[str, Any]) -> str:
    """The page; every name is escaped."""
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    rows = "".join(_row(view) for view in found["views"])
    wrong = [] if found["workers"] else [NO_WORKER]
    wrong += [f"Some features can't be filled: {why}" for why in found["unfilled"]]
    missing = "".join(f'<p class="behind">{escape(one)}</p>' for one in wrong)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Features - Contender</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="refresh" content="5"><link rel="stylesheet" href="/static/page.css"></head>'
        f"<body><h1>Features</h1>{missing}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"<footer>{found['workers']} workers; {found['parked']:,} events parked. Lags and rates are of the last "
        "minute, from an event's record in Kafka to the store.</footer></body></html>"
    )


def _row(view: ViewStatus) -> str:
    cells = [
        escape(view.label),
        "filled" if view.complete else "being filled",
        "none yet" if view.newest_event_age_s is None else f"{format_duration(view.newest_event_age_s)} ago",
        format_duration(view.lag_p50_s),
        format_duration(view.lag_p99_s),
        format_duration(view.objective_s),
        f"{view.events_per_s:,.1f}",
        f"{view.late:,}",
        f"{view.entities:,}",
    ]
    tone = ' class="behind"' if view.behind else ""
    return f"<tr{tone}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
