"""Sums of a metric that is a mean over rows, where units repeat, and their comparison epoch by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contender.contracts.metrics import Metric
from services.feedback_service.domain.sums.estimates import (
    MIN_OBSERVATIONS,
    Comparison,
    Estimate,
    Floats,
    effect,
    length,
    never_certain,
    overlap_weight,
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
)
from services.feedback_service.domain.sums.units import BUCKETS

_ROWS, _TOTAL = 0, 1
"""The keys of a day's totals."""


@dataclass(frozen=True, slots=True, eq=False)
class DayEffects:
    """Challenger minus champion on each day that has rows of both, and what it weighs; arrays of shape (days,)."""

    days: NDArray[np.int64]
    values: Floats
    weights: Floats

    def within(self, days: range) -> "DayEffects":
        """Those of some days."""
        inside = (self.days >= days.start) & (self.days < days.stop)
        return DayEffects(self.days[inside], self.values[inside], self.weights[inside])


_ROUNDING = 1e-12
"""The share of a sum of squares that rounding alone can leave over: values that differ by less are constant."""


@dataclass(frozen=True, slots=True, eq=False)
class ClusteredSums(MetricSums):
    """What the mean of a metric needs when units repeat: row counts and totals per hash bucket of the unit.

    Rows of one unit resemble each other, rows of different buckets do not: the buckets are the independent
    observations. Both arrays have shape (BUCKETS,).
    """

    rows: Floats = field(default_factory=lambda: np.zeros(BUCKETS))
    totals: Floats = field(default_factory=lambda: np.zeros(BUCKETS))

    @classmethod
    def of(cls, buckets: NDArray[np.intp], values: ArrayLike) -> "ClusteredSums":
        """The sums of one value per row; `buckets` (from `unit_buckets`) and `values` have shape (rows,)."""
        weights = np.asarray(values, dtype=np.float64)
        rows = np.bincount(buckets, minlength=BUCKETS).astype(np.float64)
        return cls(rows, np.bincount(buckets, weights=weights, minlength=BUCKETS).astype(np.float64))

    @classmethod
    def additions(cls, metric: Metric, rows: LabelledRows) -> Additions:
        """The metric's value of each row, at the row's bucket."""
        if metric.name in rows.known:
            return rows.buckets, rows.known[metric.name]
        labelled = metric.label_values if rows.labels is not None else None
        if labelled is not None and rows.labels is not None:
            return rows.buckets, labelled(rows.outcomes, rows.labels)
        values = metric.row_values(rows.task, rows.outcomes, rows.scores, rows.log_loss_clip, rows.error_limit)
        return rows.buckets, values

    @classmethod
    def value_additions(cls, buckets: Buckets, values: Floats) -> Additions:
        """The value of each row, at its bucket; a row without one is counted at BUCKETS plus its bucket."""
        missing = np.isnan(values)
        return buckets + BUCKETS * missing.astype(np.int64), np.where(missing, 1.0, values)

    @classmethod
    def read(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> "ClusteredSums":
        """The sums of what was added up by bucket."""
        values, missing = np.split(dense(totals, 2 * BUCKETS), 2)
        return cls(dense(rows, BUCKETS) - missing, values)

    @classmethod
    def day_totals(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> dict[int, float]:
        """The day's rows, and the sum of their values."""
        missing = sum(count for key, count in totals.items() if key >= BUCKETS)
        total = sum(value for key, value in totals.items() if key < BUCKETS)
        return {_ROWS: float(sum(rows.values()) - missing), _TOTAL: float(total)}

    @classmethod
    def day_effect(cls, epochs: Sequence[tuple[DayTotals, DayTotals]]) -> DayEffect | None:
        """As `compare_clustered`, with days in place of the units' buckets."""
        numbers = tuple(sorted({day for epoch in epochs for arm in epoch for day in arm}))
        counted, value, influence = 0.0, 0.0, np.zeros(len(numbers))
        for epoch in epochs:
            champion, challenger = (_by_day(arm, numbers) for arm in epoch)
            rows = [float(arm[_ROWS].sum()) for arm in (champion, challenger)]
            if min(rows) <= 0.0:
                continue
            weight = overlap_weight(*rows)
            means = [float(arm[_TOTAL].sum()) / n for arm, n in zip((champion, challenger), rows, strict=True)]
            moved = [
                (arm[_TOTAL] - mean * arm[_ROWS]) / n
                for arm, mean, n in zip((champion, challenger), means, rows, strict=True)
            ]
            value += weight * (means[1] - means[0])
            influence += weight * (moved[1] - moved[0])
            counted += weight
        return DayEffect(value / counted, numbers, influence / counted) if counted else None

    @classmethod
    def effects_of_days(cls, epochs: Sequence[tuple[DayTotals, DayTotals]]) -> DayEffects:
        """The effect of each day alone; where a day has several epochs these weigh as in `overlap_weight`."""
        numbers = sorted({day for epoch in epochs for arm in epoch for day in arm})
        values, weights = np.zeros(len(numbers)), np.zeros(len(numbers))
        for epoch in epochs:
            (rows, totals), (other_rows, other_totals) = (_by_day(arm, numbers) for arm in epoch)
            both = (rows > 0.0) & (other_rows > 0.0)
            rows, other_rows = np.where(both, rows, 1.0), np.where(both, other_rows, 1.0)
            weight = np.where(both, rows * other_rows / (rows + other_rows), 0.0)
            values += weight * (other_totals / other_rows - totals / rows)
            weights += weight
        kept = weights > 0.0
        return DayEffects(np.array(numbers, dtype=np.int64)[kept], values[kept] / weights[kept], weights[kept])

    @classmethod
    def compare(cls, epochs: Sequence[tuple["ClusteredSums", "ClusteredSums"]]) -> Comparison | None:
        """`compare_clustered`."""
        return compare_clustered(epochs)

    def __add__(self, other: "ClusteredSums") -> "ClusteredSums":
        """The sums over the rows of both."""
        return ClusteredSums(self.rows + other.rows, self.totals + other.totals)

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.rows.sum())

    @property
    def filled(self) -> int:
        """Buckets that have rows: the number of observations that are independent of each other, at most BUCKETS."""
        return int(np.count_nonzero(self.rows))

    @property
    def mean(self) -> float:
        """The mean over all rows, a ratio of two sums over buckets; not a number without rows."""
        return float(self.totals.sum() / self.rows.sum()) if self.n else nan

    @property
    def influence(self) -> Floats:
        """How much each bucket moves the mean, shape (BUCKETS,); the sum of squares is the variance of the mean.

        Source: the linearised variance of a ratio, with the usual factor K / (K - 1) for K clusters; Cochran,
        Sampling Techniques, 3rd edition, chapter 6; Deng, Lu, Litz, Trustworthy analysis of online A/B tests, 2017.
        """
        if self.filled < 2:  # noqa: PLR2004 - a variance takes two observations
            return np.full(BUCKETS, inf)
        residuals: Floats = self.totals - self.mean * self.rows
        if np.square(residuals).sum() <= _ROUNDING * np.square(self.totals).sum():
            return np.zeros(BUCKETS)
        influence: Floats = residuals / self.rows.sum() * sqrt(self.filled / (self.filled - 1))
        return influence

    @property
    def estimate(self) -> Estimate:
        """The mean as an estimate whose standard error allows for rows of one unit resembling each other."""
        return Estimate(self.mean, length(self.influence), self.n)


def _by_day(arm: DayTotals, numbers: Sequence[int]) -> Floats:
    """Rows and totals of the days of these numbers, shape (2, days)."""
    return np.array([[arm.get(day, {}).get(key, 0.0) for day in numbers] for key in (_ROWS, _TOTAL)])


def compare_clustered(epochs: Sequence[tuple[ClusteredSums, ClusteredSums]]) -> Comparison | None:
    """Champion against challenger over epochs, each epoch a pair (champion, challenger), with units that repeat.

    Weights as in `compare`. The influence of a bucket is added up over arms and epochs before it is squared, so a unit
    that returns in a later epoch, or crosses over to the other arm, is still one observation.

    Returns:
        The comparison, or None while no epoch has MIN_OBSERVATIONS filled buckets in both arms.
    """
    counted = [epoch for epoch in epochs if min(arm.filled for arm in epoch) >= MIN_OBSERVATIONS]
    if not counted:
        return None
    effects = [effect(champion.estimate, challenger.estimate) for champion, challenger in counted]
    weights = weights_of([(champion.n, challenger.n) for champion, challenger in counted])
    champion, challenger = (_clustered_mean([epoch[arm] for epoch in counted], weights) for arm in (0, 1))
    influences = [_influence_on(epoch_effect, *epoch) for epoch_effect, epoch in zip(effects, counted, strict=True)]
    standard_error = length(np.tensordot(weights, np.array(influences), axes=1))
    difference = challenger.value - champion.value
    observations = max(champion_sums.filled + challenger_sums.filled for champion_sums, challenger_sums in counted)
    standard_error = never_certain(difference, standard_error, observations)
    return Comparison(champion, challenger, Estimate(difference, standard_error, champion.n + challenger.n))


def mean_of_differences(epochs: Sequence[ClusteredSums]) -> Estimate | None:
    """The mean of differences within rows, whose sums these are: epochs weigh as many rows as they have.

    The influence of a bucket is added up over epochs before it is squared, as in `compare_clustered`.

    Returns:
        The estimate, or None while no epoch has MIN_OBSERVATIONS filled buckets.
    """
    counted = [epoch for epoch in epochs if epoch.filled >= MIN_OBSERVATIONS]
    if not counted:
        return None
    rows = np.array([epoch.rows.sum() for epoch in counted])
    mean = _clustered_mean(counted, rows / rows.sum())
    filled = max(epoch.filled for epoch in counted)
    return Estimate(mean.value, never_certain(mean.value, mean.standard_error, filled), mean.n)


def zeros_by_day(days: DayTotals) -> DayTotals:
    """As many rows by day, each of the value zero: the day effect against them is that of the mean itself."""
    return {day: {**totals, _TOTAL: 0.0} for day, totals in days.items()}


def _influence_on(epoch_effect: Estimate, champion: ClusteredSums, challenger: ClusteredSums) -> Floats:
    """How much each bucket moves the effect of one epoch, stretched to the standard error that `effect` asks for."""
    influences = challenger.influence, champion.influence
    own = sqrt(sum(length(influence) ** 2 for influence in influences))
    stretch = epoch_effect.standard_error / own if own > 0.0 else 1.0
    moved: Floats = stretch * (influences[0] - influences[1])
    return moved


def _clustered_mean(arms: Sequence[ClusteredSums], weights: Floats) -> Estimate:
    influence = np.tensordot(weights, np.array([arm.influence for arm in arms]), axes=1)
    return Estimate(float(np.dot(weights, [arm.mean for arm in arms])), length(influence), sum(arm.n for arm in arms))
