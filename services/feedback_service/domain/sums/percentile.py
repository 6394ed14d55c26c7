"""The 95th percentile of latencies, from a histogram of them; its interval is valid at every look."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf, log, nan
from typing import Self

import numpy as np
from scipy.special import betaln

from contender.contracts.metrics import Metric
from services.feedback_service.domain.sums.estimates import (
    Comparison,
    ConfidenceSequence,
    Estimate,
    Floats,
    weights_of,
)
from services.feedback_service.domain.sums.metric_sums import (
    Additions,
    Buckets,
    DayEffect,
    DayTotals,
    LabelledRows,
    MetricSums,
    dense,
    leave_days_out,
)

QUANTILE = 0.95
PRIOR_STRENGTH = 100.0
"""Rows that the prior of the e-value weighs."""

WIDTH = 0.03
"""How much longer the longest latency of a bin is than the shortest."""

SHORTEST_MS, LONGEST_MS = 0.1, 600_000.0
EDGES: Floats = np.geomspace(SHORTEST_MS, LONGEST_MS, round(log(LONGEST_MS / SHORTEST_MS) / log(1.0 + WIDTH)) + 1)
"""The upper ends of the bins, in milliseconds. Latencies up to the first edge are in the first bin; the bin after the
last edge has those beyond."""

BINS = len(EDGES) + 1

MIN_ROWS = 600
"""Rows that an arm needs in an epoch: with fewer the interval has no upper end at small alphas, whatever the rows."""

_DAY_STEP = 4
"""Bins that are one in the totals of a day: about 12 % wide."""

_DAY_BINS = -(-BINS // _DAY_STEP)
_DAY_EDGES = EDGES[_DAY_STEP - 1 :: _DAY_STEP]
_SMALLEST_P, _BISECTIONS = 1e-9, 12
"""p is found to within 1 % of itself, and not below the smallest."""


@dataclass(frozen=True, slots=True, eq=False)
class LatencyPercentile(MetricSums):
    """Latencies of one variant, counted by bin, shape (BINS,). Rows of one unit count as independent."""

    counts: Floats = field(default_factory=lambda: np.zeros(BINS))

    @classmethod
    def additions(cls, metric: Metric, rows: LabelledRows) -> Additions:
        """One at the bin of the metric's value."""
        values = metric.row_values(rows.task, rows.outcomes, rows.scores, rows.log_loss_clip)
        return cls.value_additions(rows.buckets, values)

    @classmethod
    def value_additions(cls, buckets: Buckets, values: Floats) -> Additions:  # noqa: ARG003 - not by unit
        """One at the bin of each value; nothing where there is none."""
        return np.searchsorted(EDGES, values, side="left"), (~np.isnan(values)).astype(np.float64)

    @classmethod
    def read(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> Self:  # noqa: ARG003 - the totals say all
        """The histogram of what was counted by bin."""
        return cls(dense(totals, BINS))

    @classmethod
    def day_totals(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> dict[int, float]:  # noqa: ARG003
        """The day's histogram in wider bins."""
        wide: dict[int, float] = {}
        for key, count in totals.items():
            wide[key // _DAY_STEP] = wide.get(key // _DAY_STEP, 0.0) + count
        return wide

    @classmethod
    def day_effect(cls, epochs: Sequence[tuple[DayTotals, DayTotals]]) -> DayEffect | None:
        """The influences come from leaving out one day at a time."""
        days = tuple(sorted({day for epoch in epochs for arm in epoch for day in arm}))
        pairs = [
            np.array([[dense(arm.get(day, {}), _DAY_BINS) for day in days] for arm in epoch]).reshape(2, -1, _DAY_BINS)
            for epoch in epochs
        ]
        counted = [pair for pair in pairs if pair.sum(axis=(1, 2)).min() >= MIN_ROWS]
        return leave_days_out(days, counted, _day_difference)

    @classmethod
    def compare(cls, epochs: Sequence[tuple[Self, Self]]) -> Comparison | None:
        """The percentiles and their difference, with no standard error: `look` has the interval."""
        counted = _counted(epochs)
        if not counted:
            return None
        weights = weights_of([(champion.n, challenger.n) for champion, challenger in counted])
        values = weights @ np.array([[arm.value for arm in epoch] for epoch in counted])
        rows = np.array([[arm.n for arm in epoch] for epoch in counted]).sum(axis=0)
        champion, challenger = (Estimate(float(value), inf, int(n)) for value, n in zip(values, rows, strict=True))
        return Comparison(
            champion, challenger, Estimate(challenger.value - champion.value, inf, champion.n + challenger.n)
        )

    @classmethod
    def look(cls, epochs: Sequence[tuple[Self, Self]], alpha: float) -> ConfidenceSequence | None:
        """The look at challenger minus champion: the arms' intervals, each at half of alpha, subtracted.

        Epochs share alpha evenly and are combined with the weights of `weights_of`. p is the least alpha at which the
        interval excludes zero.
        """
        counted, comparison = _counted(epochs), cls.compare(epochs)
        if comparison is None:
            return None
        weights = weights_of([(champion.n, challenger.n) for champion, challenger in counted])
        evidence = [[arm.evidence for arm in epoch] for epoch in counted]

        def interval(level: float) -> tuple[float, float]:
            each = level / (2.0 * len(counted))
            ends = np.array([[_between(arm, each) for arm in epoch] for epoch in evidence])
            low, high = weights @ (ends[:, 1, 0] - ends[:, 0, 1]), weights @ (ends[:, 1, 1] - ends[:, 0, 0])
            return float(low), float(high)

        low, high = interval(alpha)
        effect = comparison.effect
        return ConfidenceSequence(effect.value, low, high, _least_alpha(interval), effect.n)

    def own_look(self, alpha: float) -> ConfidenceSequence | None:
        """The interval of the percentile; p has no meaning."""
        low, high = _between(self.evidence, alpha)
        return ConfidenceSequence(self.value, low, high, 1.0, self.n)

    def __add__(self, other: Self) -> Self:
        """The histogram of the rows of both."""
        return type(self)(self.counts + other.counts)

    @property
    def n(self) -> int:
        """All rows that have a latency."""
        return int(self.counts.sum())

    @property
    def value(self) -> float:
        """The percentile, in milliseconds; not a number without rows."""
        return _percentile(self.counts, EDGES)

    @property
    def estimate(self) -> Estimate:
        """The percentile, with no standard error: `own_look` has the interval."""
        return Estimate(self.value, inf, self.n)

    @property
    def evidence(self) -> Floats:
        """The logarithm of the evidence against each edge being the percentile, shape (edges,).

        It is positive where too many rows lie below the edge, negative where too few do: the e-value of two cells,
        below and above, against the shares QUANTILE and 1 - QUANTILE. An edge that is the percentile ever has evidence
        of 1 / alpha with probability alpha at most, and so has any edge beyond it that is taken for one before it.
        Source: Lindon and Malek, Anytime-valid inference for multinomial count data, arXiv 2011.03567.
        """
        below = np.cumsum(self.counts)[:-1]
        above = self.counts.sum() - below
        a, b = PRIOR_STRENGTH * QUANTILE, PRIOR_STRENGTH * (1.0 - QUANTILE)
        evidence = betaln(a + below, b + above) - betaln(a, b) - below * log(QUANTILE) - above * log(1.0 - QUANTILE)
        signed: Floats = np.where(below > QUANTILE * (below + above), 1.0, -1.0) * np.maximum(evidence, 0.0)
        return signed


def _counted(epochs: Sequence[tuple[LatencyPercentile, LatencyPercentile]]) -> list[tuple[LatencyPercentile, ...]]:
    return [epoch for epoch in epochs if min(arm.n for arm in epoch) >= MIN_ROWS]


def _between(evidence: Floats, alpha: float) -> tuple[float, float]:
    """The ends of the percentile's interval: the nearest edges with enough evidence that it lies beyond them."""
    reached = log(1.0 / alpha)
    low, high = np.flatnonzero(evidence <= -reached), np.flatnonzero(evidence >= reached)
    return float(EDGES[low[-1]]) if len(low) else 0.0, float(EDGES[high[0]]) if len(high) else inf


def _least_alpha(interval: Callable[[float], tuple[float, float]]) -> float:
    """The least alpha at which an interval excludes zero, by bisection; 1 where it does at none."""

    def excludes_zero(level: float) -> bool:
        low, high = interval(level)
        return low > 0.0 or high < 0.0

    if not excludes_zero(1.0):
        return 1.0
    below, above = log(_SMALLEST_P), 0.0
    for _ in range(_BISECTIONS):
        middle = (below + above) / 2.0
        below, above = (below, middle) if excludes_zero(exp(middle)) else (middle, above)
    return exp(above)


def _percentile(counts: Floats, edges: Floats) -> float:
    """The percentile of a histogram; within a bin latencies count as even on the scale of logarithms."""
    rows = counts.sum()
    if not rows:
        return nan
    cumulated = np.cumsum(counts)
    number = int(np.searchsorted(cumulated, QUANTILE * rows))
    if number >= len(edges):
        return float(edges[-1])
    share = (QUANTILE * rows - (cumulated[number] - counts[number])) / counts[number]
    return float(edges[number] * (edges[1] / edges[0]) ** (share - 1.0))


def _day_difference(epochs: Sequence[Floats]) -> float:
    """Challenger minus champion over epochs, each of shape (2, bins)."""
    rows = np.array([pair.sum(axis=1) for pair in epochs])
    if not rows.size or rows.min() <= 0.0:
        return nan
    weights = weights_of([(float(champion), float(challenger)) for champion, challenger in rows])
    return float(weights @ [np.diff([_percentile(arm, _DAY_EDGES) for arm in pair])[0] for pair in epochs])
