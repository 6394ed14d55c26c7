"""Mergeable histograms of scores per class, and the area under the ROC curve that they give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, nan, sqrt

import numpy as np

from contender.contracts.metrics import Metric
from contender.contracts.metrics.auc import AUC
from services.feedback_service.domain.sums.estimates import Comparison, Estimate, Floats, compare, weights_of
from services.feedback_service.domain.sums.fixed_point import to_fixed_point
from services.feedback_service.domain.sums.metric_sums import (
    Additions,
    DayEffect,
    DayTotals,
    LabelledRows,
    MetricSums,
    dense,
)
from services.feedback_service.domain.sums.units import BUCKETS

_DAY_BINS = 100
"""Bins of one class of a day's scores."""

BINS = 1000
"""Equal bins over [0, 1]: an AUC from them differs from the exact one by less than its standard error by far."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram(MetricSums):
    """Scores of one variant of a binary model, counted by bin and outcome; both arrays have shape (BINS,).

    `rows` counts rows by the unit's bucket, shape (BUCKETS,); it says how many rows a unit has.
    """

    negatives: Floats = field(default_factory=lambda: np.zeros(BINS))
    positives: Floats = field(default_factory=lambda: np.zeros(BINS))
    rows: Floats = field(default_factory=lambda: np.zeros(BUCKETS))

    @classmethod
    def additions(cls, metric: Metric, rows: LabelledRows) -> Additions:  # noqa: ARG003 - it needs scores alone
        """One at the score's bin; the bins of the positives follow those of the negatives."""
        bins = np.clip((rows.scores * BINS).astype(np.int64), 0, BINS - 1)
        return bins + BINS * (rows.outcomes == 1.0), np.ones(len(bins))

    @classmethod
    def read(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> "ScoreHistogram":
        """The histogram of what was counted by bin."""
        negatives, positives = dense(totals, 2 * BINS).reshape(2, BINS)
        return cls(negatives, positives, dense(rows, BUCKETS))

    @classmethod
    def day_totals(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> dict[int, float]:  # noqa: ARG003
        """The day's histograms in _DAY_BINS bins: they say how much the days differ, and no more."""
        wide: dict[int, float] = {}
        for key, count in totals.items():
            wide[key * _DAY_BINS // BINS] = wide.get(key * _DAY_BINS // BINS, 0.0) + count
        return wide

    @classmethod
    def day_effect(cls, epochs: Sequence[tuple[DayTotals, DayTotals]]) -> DayEffect | None:
        """The influences come from leaving out one day at a time (the jackknife; Efron and Stein, 1981)."""
        numbers = tuple(sorted({day for epoch in epochs for arm in epoch for day in arm}))
        arrays = [tuple(_by_day(arm, numbers) for arm in epoch) for epoch in epochs]
        value = _effect_of([tuple(arm.sum(axis=0) for arm in epoch) for epoch in arrays])
        if not isfinite(value):
            return None
        without = [
            _effect_of([tuple(arm.sum(axis=0) - arm[index] for arm in epoch) for epoch in arrays])
            for index in range(len(numbers))
        ]
        if not np.isfinite(without).all():
            return None
        k = len(numbers)
        return DayEffect(value, numbers, (np.mean(without) - np.array(without)) * (k - 1) / k)

    @classmethod
    def compare(cls, epochs: Sequence[tuple["ScoreHistogram", "ScoreHistogram"]]) -> Comparison | None:
        """Epochs as in `estimates.compare`, of rows that are independent; then the standard error is widened.

        The rows of a unit are taken over all epochs: one that returns is still one observation.
        """
        comparison = compare([(champion.area, challenger.area) for champion, challenger in epochs])
        if comparison is None:
            return None
        widening = max(sqrt(rows_per_unit(sum(arm.rows for arm in arms))) for arms in zip(*epochs, strict=True))
        return replace(comparison, effect=_widened(comparison.effect, widening))

    def __add__(self, other: "ScoreHistogram") -> "ScoreHistogram":
        """The histogram of the rows of both."""
        return ScoreHistogram(
            self.negatives + other.negatives, self.positives + other.positives, self.rows + other.rows
        )

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.negatives.sum() + self.positives.sum())

    @property
    def estimate(self) -> Estimate:
        """The area under the ROC curve, with a standard error that allows for all rows of a unit being alike."""
        return _widened(self.area, sqrt(rows_per_unit(self.rows)))

    @property
    def area(self) -> Estimate:
        """The probability that a positive outscores a negative, for rows that are independent; scores in one bin tie.

        Source: DeLong, DeLong, Clarke-Pearson, Comparing the areas under two or more correlated ROC curves, Biometrics
        1988: the variance is that of the placements of the positives among the negatives, divided by the positives,
        plus the same the other way round. The value is not a number while a class is missing.
        """
        negatives, positives = self.negatives.sum(), self.positives.sum()
        if min(negatives, positives) == 0:
            return Estimate(nan, inf, self.n)
        beaten = (np.cumsum(self.negatives) - 0.5 * self.negatives) / negatives
        beating = 1.0 - (np.cumsum(self.positives) - 0.5 * self.positives) / positives
        value = float(beaten @ self.positives / positives)
        variance = _variance_of_mean(beaten, self.positives) + _variance_of_mean(beating, self.negatives)
        return Estimate(value, sqrt(variance), self.n)


def _by_day(arm: DayTotals, numbers: Sequence[int]) -> Floats:
    """The histograms of the days of these numbers, negatives first, shape (days, 2 * _DAY_BINS)."""
    return np.array([dense(arm.get(day, {}), 2 * _DAY_BINS) for day in numbers])


def _effect_of(epochs: Sequence[tuple[Floats, ...]]) -> float:
    """Challenger minus champion in the area under the ROC curve; not a number while a class is missing everywhere."""
    counted = [arms for arms in epochs if all(np.all(arm.reshape(2, -1).sum(axis=1) > 0.0) for arm in arms)]
    if not counted:
        return nan
    weights = weights_of([(arms[0].sum(), arms[1].sum()) for arms in counted])
    return float(weights @ [_area(arms[1]) - _area(arms[0]) for arms in counted])


def _area(counts: Floats) -> float:
    negatives, positives = counts.reshape(2, -1)
    beaten = np.cumsum(negatives) - 0.5 * negatives
    return float(beaten @ positives / negatives.sum() / positives.sum())


def rows_per_unit(rows: Floats) -> float:
    """Rows that a unit has on average, seen from a row: sum(u^2) / sum(u) over units of u rows; at least 1.

    `rows` are counts by the unit's bucket, shape (BUCKETS,). Units are hashed to buckets at random, so the spread of
    the counts estimates the sum of the squared units. The variance of a sum over rows is so many times that over
    independent rows if all rows of a unit are alike, and less if they are not (the design effect; Kish, Survey
    Sampling, 1965, chapter 5).
    """
    n = float(rows.sum())
    return max(1.0, float(np.square(rows - rows.mean()).sum()) * BUCKETS / (BUCKETS - 1) / n) if n else 1.0


def read_first_release(negatives: Mapping[int, int], positives: Mapping[int, int]) -> dict[str, dict[int, int]]:
    """Totals by metric of the histograms that the first release stored apart: it had one such metric."""
    counts = {**negatives, **{BINS + score_bin: count for score_bin, count in positives.items()}}
    return {AUC.name: {key: to_fixed_point(count) for key, count in counts.items()}} if counts else {}


def _widened(estimate: Estimate, factor: float) -> Estimate:
    return replace(estimate, standard_error=factor * estimate.standard_error)


def _variance_of_mean(values: Floats, counts: Floats) -> float:
    n = float(counts.sum())
    if n < 2:  # noqa: PLR2004 - a variance takes two values
        return inf
    mean = values @ counts / n
    return float(np.square(values - mean) @ counts / (n - 1.0) / n)
