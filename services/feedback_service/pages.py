"""The dashboard's pages: the list of experiments, and the results of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastapi import Request
from starlette.responses import HTMLResponse

from contender.contracts.feedback_service import DayPoint, Effect, Interval
from contender.contracts.metrics import metric_named
from services.feedback_service.domain.split import BLOCKING_P
from services.feedback_service.handlers import ReadResults
from shared.pages import Pages

UNKNOWN = "?"
_WIDTH, _MARGIN = 240.0, 8.0
_CURVE = 640.0, 180.0
_BELOW = 16.0
"""The space below a curve, for its dates."""
_SMALLEST_P = 1e-6
_UNITS_S = (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0))
_STATES = {
    "draft": "not started",
    "running": "running",
    "stopped": "stopped",
    "unknown": "seen in predictions only",
}
_CHECKS = {
    "arrival": ("Labels arrive alike", "Labels do not arrive alike"),
    "tail": ("Late labels are alike", "Late labels are not alike"),
    "unanswered": ("Unanswered rows are alike", "Unanswered rows are not alike"),
}


@dataclass(frozen=True, slots=True)
class Axis:
    """The axis that the effects in one metric share: from `-reach` to `reach`, zero in the middle.

    `better_left` says that the challenger is better left of zero.
    """

    reach: float
    better_left: bool
    width: float = _WIDTH

    def x(self, value: float) -> float:
        """Where a value lies, in units of the drawing."""
        return self.width / 2 + (self.width / 2 - _MARGIN) * max(-1.0, min(1.0, value / self.reach))


def axis(effects: Iterable[Effect]) -> Axis | None:
    """The axis of all challengers' effects in one metric; None while none has an interval."""
    known = [effect for effect in effects if effect.low is not None and effect.high is not None]
    if not known:
        return None
    ends = [abs(end) for effect in known for end in (effect.low, effect.high, effect.estimate) if end is not None]
    return Axis(max(ends) or 1.0, known[0].lower_is_better)


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawing of an effect over days: points as SVG has them, where zero lies, and where whole cycles end."""

    line: str
    band: str
    zero: float
    cycles: list[float]
    top: float
    bottom: float
    width: float = _CURVE[0]
    height: float = _CURVE[1]


def curve(points: Sequence[DayPoint], cycle_days: int) -> Curve | None:
    """The drawing of an effect day by day; None below two days."""
    if len(points) < 2:  # noqa: PLR2004 - a line has two ends
        return None
    values = [0.0, *(end for point in points for end in (point.estimate, point.low, point.high) if end is not None)]
    bottom, top = min(values), max(values)
    height = _CURVE[1] - _BELOW

    def at(index: int, value: float) -> str:
        return f"{_CURVE[0] * index / (len(points) - 1):.1f},{height * (top - value) / ((top - bottom) or 1.0):.1f}"

    bounded = [(index, point) for index, point in enumerate(points) if point.low is not None and point.high is not None]
    band = [at(index, point.high or 0.0) for index, point in bounded]
    band += [at(index, point.low or 0.0) for index, point in reversed(bounded)]
    ends = range(cycle_days - 1, len(points), cycle_days) if cycle_days else ()
    return Curve(
        " ".join(at(index, point.estimate) for index, point in enumerate(points)),
        " ".join(band),
        round(height * top / ((top - bottom) or 1.0), 1),
        [round(_CURVE[0] * end / (len(points) - 1), 1) for end in ends],
        top,
        bottom,
    )


def tone(effect: Effect) -> str:
    """The class of an effect's bar."""
    return {None: "open", True: "good", False: "bad"}[effect.better]


def mean(interval: Interval | None) -> str:
    """The mean to four digits."""
    return UNKNOWN if interval is None or interval.mean is None else f"{interval.mean:.4g}"


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


pages = Pages(
    Path(__file__).parent / "templates",
    {
        "axis": axis,
        "tone": tone,
        "curve": curve,
        "mean": mean,
        "signed": signed,
        "chance": chance,
        "words": words,
        "duration": duration,
        "state": state,
        "check": check,
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
