"""Lines on real flights, whose days differ: they need the packages of the extra `stack`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulate.lines import RUNS, SEED, Lines
from benchmarks.simulate.pairs import Values, rows_to_decide, verdict_on_days
from benchmarks.simulate.worlds import Floats, Integers
from contender.contracts.metrics import metric_named
from contender.extras import MissingExtraError, needs_extra
from services.feedback_service.domain.sums.units import unit_buckets

LIMIT_ROWS, START_DAYS, RIGHT = 20_000, 84, 0.95
PAIR = ("plain", "boosted")
"""Of these the better one changes from week to week."""
ENDS = range(100, LIMIT_ROWS + 1, 50)


@dataclass(frozen=True, slots=True)
class Flights:
    """The flights of half a year with the log loss of each by model; every array has shape (rows,).

    `days` count from the first of July. Rows without an outcome have no loss: it is not a number.
    """

    days: Integers
    buckets: Integers
    losses: dict[str, Floats]
    is_known: NDArray[np.bool_]

    def rows(self, chosen: Integers, pair: tuple[str, str], arms: Integers | None) -> tuple[Values, Integers]:
        """The values of chosen rows and their days, counted from the first row's; `arms` None: of pairs."""
        champion, challenger = (self.losses[name][chosen] for name in pair)
        values = challenger - champion if arms is None else np.where(arms == 1, challenger, champion)
        return Values(values, self.buckets[chosen], arms), self.days[chosen] - self.days[chosen[0]]


@lru_cache(maxsize=1)
def load_flights() -> Flights:
    """The flights as the models score them.

    Raises:
        MissingExtraError: the extra `stack` is not installed.
    """
    with needs_extra("stack", "simulating flights"):
        from benchmarks.simulate.flight_scores import flight_scores  # noqa: PLC0415 - other lines need no extra

        scored = flight_scores()
    metric = metric_named("log_loss")
    losses = {name: metric.row_values("binary", scored.outcomes, scores) for name, scores in scored.scores.items()}
    buckets = unit_buckets(scored.units).astype(np.int64)
    return Flights(scored.days, buckets, losses, ~np.isnan(scored.outcomes))


def or_skipped(
    line: Callable[[Flights, int], tuple[str, bool]], runs: int, load: Callable[[], Flights] = load_flights
) -> tuple[str, bool]:
    """The line, or why there is none."""
    try:
        flights = load()
    except MissingExtraError as error:
        return f"skipped: {error}", True
    return line(flights, runs)


def _spelled(verdicts: Sequence[tuple[float, float]], right: float = -1.0) -> str:
    """The shares of right and of wrong verdicts, and the median of when the right ones came."""
    signs = np.array([sign for _, sign in verdicts])
    came = f"{np.mean(signs == right):.1%} right, {np.mean(signs == -right):.1%} wrong"
    at = [when for when, sign in verdicts if sign == right]
    return f"{came}, median {np.median(at):,.0f}" if at else came


def first_weeks(flights: Flights, runs: int) -> tuple[str, bool]:
    """The demo's two models from the first of July, over the whole days that fit into its limit."""
    from examples.flights.replay import OUT_OF, SAMPLED  # noqa: PLC0415 - other lines need no extra

    everything = np.arange(len(flights.days))
    verdicts = []
    for replayed in (everything[everything % OUT_OF < SAMPLED], everything):
        random = np.random.default_rng(SEED)
        kept = replayed[flights.days[replayed] < flights.days[replayed[LIMIT_ROWS]]]
        kept = kept[flights.is_known[kept]]
        verdicts.append(
            [verdict_on_days(*flights.rows(kept, ("v1", "v3"), random.integers(0, 2, len(kept)))) for _ in range(runs)]
        )
    came = f"{_spelled(verdicts[0])} (days; every flight: {_spelled(verdicts[1])})"
    return f"{came}; wanted >= 95 % right", bool(np.mean([sign < 0.0 for _, sign in verdicts[0]]) >= RIGHT)


def starts(flights: Flights, runs: int, *, pair: tuple[str, str]) -> tuple[str, bool]:
    """Twelve weeks from any day of the half-year on, as an A/B test and paired."""
    came, wrong = [], 0
    for name in ("A/B", "paired"):
        random, verdicts = np.random.default_rng(SEED), []
        for _ in range(runs):
            start = random.integers(0, flights.days[-1] - START_DAYS + 2)
            first, end = np.searchsorted(flights.days, [start, start + START_DAYS])
            chosen = first + np.flatnonzero(flights.is_known[first:end])
            arms = random.integers(0, 2, len(chosen)) if name == "A/B" else None
            verdicts.append(verdict_on_days(*flights.rows(chosen, pair, arms)))
        wrong += sum(sign > 0.0 for _, sign in verdicts)
        came.append(f"{name} {_spelled(verdicts)} days")
    return f"{'; '.join(came)}; wanted wrong 0 %", wrong == 0


def paired(flights: Flights, runs: int) -> tuple[str, bool]:
    """The rows that the sequence over rows needs from any time of the half-year on, as an A/B test and paired."""
    known, medians, came = np.flatnonzero(flights.is_known), [], []
    for name in ("A/B", "paired"):
        random, verdicts = np.random.default_rng(SEED), []
        for _ in range(runs):
            start = random.integers(0, len(known) - LIMIT_ROWS)
            chosen = known[start : start + LIMIT_ROWS]
            arms = random.integers(0, 2, LIMIT_ROWS) if name == "A/B" else None
            verdicts.append(rows_to_decide(flights.rows(chosen, PAIR, arms)[0], ENDS))
        medians.append(float(np.median([rows for rows, _ in verdicts])))
        decided = np.mean([sign != 0.0 for _, sign in verdicts])
        came.append(f"{name} {decided:.0%} decided, median {medians[-1]:,.0f} rows")
    return f"{'; '.join(came)}; wanted paired <= 600", medians[1] <= 600.0  # noqa: PLR2004


LINES: Lines = {
    "flights, v1 against v3 from 1 July": (partial(or_skipped, first_weeks), 100),
    "flights, v1 against v3 from any day": (partial(or_skipped, partial(starts, pair=("v1", "v3"))), RUNS),
    "flights, with weather from any day": (partial(or_skipped, partial(starts, pair=PAIR)), RUNS),
    "flights, with weather, rows": (partial(or_skipped, paired), 200),
}
