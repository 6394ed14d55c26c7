"""The dashboard's pages: the list of experiments, and the results of each."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from fastapi import Request
from starlette.responses import HTMLResponse

from contender.contracts.feedback_service import Constancy, Effect, Interval
from contender.contracts.metrics import metric_named
from services.feedback_service.domain.split import BLOCKING_P
from services.feedback_service.drawings import axis, curve, value_curves
from services.feedback_service.handlers import ReadResults
from shared.pages import Pages

UNKNOWN = "?"
_SMALLEST_P = 1e-6
_UNITS_S = (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0))
_STATES = {
    "draft": "not started",
    "running": "running",
    "paused": "paused: the champion answers",
    "decided": "decided: traffic goes on",
    "stopped": "stopped",
    "unknown": "seen in predictions only",
}
_CHECKS = {
    "arrival": ("Labels arrive alike", "Labels do not arrive alike"),
    "tail": ("Late labels are alike", "Late labels are not alike"),
    "unanswered": ("Unanswered rows are alike", "Unanswered rows are not alike"),
    "estimators": ("Paired and assigned rows agree", "Paired and assigned rows disagree"),
}


def tone(effect: Effect) -> str:
    """The class of an effect's bar."""
    return {None: "open", True: "good", False: "bad"}[effect.better]


def mean(interval: Interval | None) -> str:
    """The mean to four digits."""
    return UNKNOWN if interval is None or interval.mean is None else f"{interval.mean:.4g}"


def ranged(interval: Interval | None) -> str:
    """The mean with its interval."""
    if interval is None or interval.mean is None:
        return UNKNOWN
    ends = "no interval yet" if interval.low is None else f"{interval.low:.4g} to {interval.high:.4g}"
    return f"{interval.mean:.4g} ({ends})"


def signed(value: float | None) -> str:
    """A difference to three digits."""
    return UNKNOWN if value is None else f"{value:+.3g}"


def chance(p: float) -> str:
    """A p-value to two digits, and never as zero."""
    return f"{p:.2g}" if p >= _SMALLEST_P else "below 0.000001"


def words(metric: str) -> str:
    """A metric as people call it."""
    return metric_named(metric).words


def duration(seconds: float) -> str:
    """A length of time in the largest unit that it is a whole number of."""
    name, unit = next((named for named in _UNITS_S if seconds >= named[1] and not seconds % named[1]), ("second", 1.0))
    number = seconds / unit
    return f"{number:g} {name}{'' if number == 1 else 's'}"


def state(status: str) -> str:
    """An experiment's status in words."""
    return _STATES.get(status, status)


def check(p: float | None, name: str) -> tuple[str, bool]:
    """What a check found, in words, and whether it withholds the verdict."""
    passed, failed = _CHECKS[name]
    if p is None:
        return f"{passed}: too early to say", False
    return (f"{failed} (p {chance(p)})", True) if p < BLOCKING_P else (passed, False)


def over_time(found: Constancy, alpha: float) -> str:
    """Whether the effect stays the same, in words; nothing while it can't be tested."""
    if found.p is None or found.change_per_day is None:
        return ""
    if found.p >= alpha:
        return f"No change of the effect over the days is shown (p {chance(found.p)})."
    return f"The effect changes over the days, by {signed(found.change_per_day)} a day (p {chance(found.p)})."


def corrected(effects: Mapping[str, Mapping[str, Effect]]) -> bool:
    """Whether the metrics that do not decide are corrected for their number."""
    return any(effect.corrected for by_metric in effects.values() for effect in by_metric.values())


pages = Pages(
    Path(__file__).parent / "templates",
    {
        "axis": axis,
        "tone": tone,
        "curve": curve,
        "mean": mean,
        "ranged": ranged,
        "signed": signed,
        "chance": chance,
        "words": words,
        "duration": duration,
        "state": state,
        "check": check,
        "corrected": corrected,
        "over_time": over_time,
        "value_curves": value_curves,
        "segment": lambda name: quote(name, safe=""),
    },
)


@pages.get("/", summary="Experiments")
async def show_overview(request: Request) -> HTMLResponse:
    """The list of experiments."""
    results: ReadResults = request.state.read_results
    return pages.render("overview.html", experiments=await results.list_experiments())


@pages.get("/experiments/{name:path}")
async def show_experiment(request: Request, name: str) -> HTMLResponse:
    """The results of one experiment."""
    results: ReadResults = request.state.read_results
    return pages.render("experiment.html", results=await results.results(name), blocking_p=BLOCKING_P)
