"""Mergeable histograms of the scores of each class, and the metrics of a binary model that they give."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, inf, isfinite, nan
from typing import Self

import numpy as np
from scipy.special import logit

from contender.contracts.metrics import Metric
from contender.contracts.metrics.auc import AUC
from services.feedback_service.domain.sums.estimates import (
    Comparison,
    Estimate,
    Floats,
    length,
    never_certain,
    weights_of,
)
from services.feedback_service.domain.sums.fixed_point import to_fixed_point
from services.feedback_service.domain.sums.metric_sums import (
    Additions,
    DayEffect,
    DayTotals,
    LabelledRows,
    MetricSums,
    dense,
    leave_days_out,
)

BINS = 1000
"""Equal bins of the logit: on the linear scale those of a rare event would share one bin."""

LOGIT_LIMIT = 16.0
"""The bins reach from minus to plus this; scores beyond are in the outermost ones."""

UNIT_GROUPS = 20
"""Groups of units that are left out in turn; each is every so many-th bucket."""

MIN_UNIT_GROUPS = 10
"""Groups with rows that an arm needs: a variance has one degree of freedom less."""

MIN_OF_CLASS = 50
"""Positives, and negatives, that an arm needs: with fewer the variance is too small by chance too often."""

FIRST_KEY = 2 * BINS
"""Smaller keys are of earlier releases. They had equal bins of the score over all units, for which there is no variance
by groups of units: they are left out, and come back once the topics are read from their beginning."""

_DAY_BINS = 200
"""Bins of one class of a day's scores."""

_KEYS = 2 * BINS * UNIT_GROUPS


def _no_counts() -> Floats:
    return np.zeros((UNIT_GROUPS, 2, BINS))


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram(MetricSums):
    """Scores of one variant of a binary model, counted by group of units, outcome (negatives first) and bin.

    `counts` has shape (UNIT_GROUPS, 2, BINS). A metric is a subclass with its `statistic`.
    """

    counts: Floats = field(default_factory=_no_counts)

    @staticmethod
    @abstractmethod
    def statistic(counts: Floats) -> Floats:
        """The metric of histograms of shape (..., 2, bins), shape (...); not a number where a class is missing."""

    @classmethod
    def additions(cls, metric: Metric, rows: LabelledRows) -> Additions:  # noqa: ARG003 - it needs scores alone
        """One at the score's bin."""
        scaled = (logit(np.clip(rows.scores, 0.0, 1.0)) / LOGIT_LIMIT + 1.0) * (BINS / 2)
        bins = np.clip(scaled, 0, BINS - 1).astype(np.int64)
        groups = rows.buckets.astype(np.int64) % UNIT_GROUPS
        return FIRST_KEY + (2 * groups + (rows.outcomes == 1.0)) * BINS + bins, np.ones(len(bins))

    @classmethod
    def read(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> Self:  # noqa: ARG003 - the totals say all
        """The histogram of what was counted by bin. A row that an earlier release counted may have been taken back."""
        counts = {key - FIRST_KEY: count for key, count in totals.items() if key >= FIRST_KEY and count > 0.0}
        return cls(dense(counts, _KEYS).reshape(UNIT_GROUPS, 2, BINS))

    @classmethod
    def day_totals(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> dict[int, float]:  # noqa: ARG003
        """The day's histograms in _DAY_BINS bins: they say how much the days differ, and no more."""
        wide: dict[int, float] = {}
        for key, count in totals.items():
            if key >= FIRST_KEY:
                day_key = (key - FIRST_KEY) % (2 * BINS) * _DAY_BINS // BINS
                wide[day_key] = wide.get(day_key, 0.0) + count
        return wide

    @classmethod
    def day_effect(cls, epochs: Sequence[tuple[DayTotals, DayTotals]]) -> DayEffect | None:
        """The influences come from leaving out one day at a time."""
        numbers = tuple(sorted({day for epoch in epochs for arm in epoch for day in arm}))
        pairs = [np.array([_by_day(arm, numbers) for arm in epoch]) for epoch in epochs]
        counted = [pair for pair in pairs if _rarest(pair.sum(axis=1)) >= MIN_OF_CLASS]
        return leave_days_out(numbers, counted, cls._effect)

    @classmethod
    def _effect(cls, epochs: Sequence[Floats]) -> float:
        """Challenger minus champion over epochs that have both classes in both arms, each of shape (2, 2, bins)."""
        counted = [pair for pair in epochs if _rarest(pair) > 0.0]
        if not counted:
            return nan
        weights = weights_of([(pair[0].sum(), pair[1].sum()) for pair in counted])
        return float(weights @ [np.diff(cls.statistic(pair))[0] for pair in counted])

    @classmethod
    def compare(cls, epochs: Sequence[tuple[Self, Self]]) -> Comparison | None:
        """Epochs combined with the weights of `weights_of`, the variance from leaving out groups of units.

        The influence of a group of units is added up over epochs before it is squared, so a unit that returns is still
        one observation. The arms count as independent. For units that are in both, whose share in the difference
        cancels out, the standard error is too large rather than too small.

        Returns:
            The comparison, or None while no epoch has MIN_OF_CLASS positives and negatives and MIN_UNIT_GROUPS groups
            of units in both arms.
        """
        looks = [(epoch, np.array([arm.influence for arm in epoch])) for epoch in epochs]
        looks = [(epoch, influences) for epoch, influences in looks if np.isfinite(influences).all()]
        if not looks:
            return None
        weights = weights_of([(champion.n, challenger.n) for (champion, challenger), _ in looks])
        influences = np.tensordot(weights, np.array([influences for _, influences in looks]), axes=1)
        champion, challenger = (
            Estimate(
                float(np.dot(weights, [epoch[arm].value for epoch, _ in looks])),
                length(influences[arm]),
                sum(epoch[arm].n for epoch, _ in looks),
            )
            for arm in (0, 1)
        )
        difference = challenger.value - champion.value
        error = never_certain(difference, hypot(champion.standard_error, challenger.standard_error), UNIT_GROUPS)
        return Comparison(champion, challenger, Estimate(difference, error, champion.n + challenger.n))

    def __add__(self, other: Self) -> Self:
        """The histogram of the rows of both."""
        return type(self)(self.counts + other.counts)

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.counts.sum())

    @property
    def value(self) -> float:
        """The metric; it needs rows of both classes."""
        return float(self.statistic(self.counts.sum(axis=0)))

    @property
    def influence(self) -> Floats:
        """How much each group of units moves the metric, shape (UNIT_GROUPS,): the sum of squares is the variance.

        Source: the jackknife over groups; Efron and Stein, The jackknife estimate of variance, Annals of Statistics
        1981. It allows for the rows of a unit resembling each other, since a unit is in one group. From k groups the
        variance itself is uncertain: it is taken (k - 1) / (k - 3) times, as Student's t has it. The influence is
        infinite below MIN_OF_CLASS and MIN_UNIT_GROUPS, and where a class is in one group alone.
        """
        whole = self.counts.sum(axis=0)
        filled = np.flatnonzero(self.counts.any(axis=(1, 2)))
        without = whole - self.counts[filled]
        k = len(filled)
        if k < MIN_UNIT_GROUPS or _rarest(whole) < MIN_OF_CLASS or not (without.sum(axis=-1) > 0.0).all():
            return np.full(UNIT_GROUPS, inf)
        values = self.statistic(without)
        influence = np.zeros(UNIT_GROUPS)
        influence[filled] = (values.mean() - values) * (k - 1) / np.sqrt(k * (k - 3))
        return influence

    @property
    def estimate(self) -> Estimate:
        """The metric, unknown while the rows are not enough."""
        error = length(self.influence)
        return Estimate(self.value, error, self.n) if isfinite(error) else Estimate(nan, inf, self.n)


def _by_day(arm: DayTotals, numbers: Sequence[int]) -> Floats:
    """The histograms of the days of these numbers, shape (days, 2, _DAY_BINS)."""
    return np.array([dense(arm.get(day, {}), 2 * _DAY_BINS) for day in numbers]).reshape(-1, 2, _DAY_BINS)


def _rarest(counts: Floats) -> float:
    """The fewest rows of a class in histograms of shape (..., 2, bins)."""
    return float(counts.sum(axis=-1).min())


def read_first_release(negatives: Mapping[int, int], positives: Mapping[int, int]) -> dict[str, dict[int, int]]:
    """Totals by metric of the histograms that the first release stored apart; `FIRST_KEY` says what becomes of them."""
    counts = {**negatives, **{BINS + score_bin: count for score_bin, count in positives.items()}}
    return {AUC.name: {key: to_fixed_point(count) for key, count in counts.items()}} if counts else {}
