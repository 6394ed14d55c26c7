"""The dashboard's pages: the list of experiments, and the results of each."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastapi import Request
from starlette.responses import HTMLResponse

from contender.contracts.feedback_service import Effect, Interval
from contender.contracts.metrics import metric_named
from services.feedback_service.domain.split import BLOCKING_P
from services.feedback_service.handlers import ReadResults
from shared.pages import Pages

UNKNOWN = "?"
_WIDTH, _MARGIN = 220, 6


@dataclass(frozen=True, slots=True)
class Bar:
    """An effect's interval around zero, in units of the drawing, which is `width` wide; `tone` is its class."""

    low: float
    estimate: float
    high: float
    tone: str
    width: int = _WIDTH


def bar(effect: Effect) -> Bar | None:
    """The interval on a scale of its own; None where there is none yet."""
    if effect.low is None or effect.high is None or effect.estimate is None:
        return None
    scale = (_WIDTH / 2 - _MARGIN) / (max(abs(effect.low), abs(effect.high)) or 1.0)
    low, estimate, high = (_WIDTH / 2 + scale * value for value in (effect.low, effect.estimate, effect.high))
    return Bar(low, estimate, high, {None: "open", True: "good", False: "bad"}[effect.better])


def mean(interval: Interval | None) -> str:
    """The mean to four digits."""
    return UNKNOWN if interval is None or interval.mean is None else f"{interval.mean:.4g}"


def signed(value: float | None) -> str:
    """A difference to three digits."""
    return UNKNOWN if value is None else f"{value:+.3g}"


def words(metric: str) -> str:
    """A metric as people call it."""
    return metric_named(metric).words


pages = Pages(
    Path(__file__).parent / "templates",
    {"bar": bar, "mean": mean, "signed": signed, "words": words, "segment": lambda name: quote(name, safe="")},
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
