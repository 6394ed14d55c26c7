"""Looks at one value a row: that of its own variant, or the difference of two that both score it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.simulate.looks import ALPHA, TUNING_N, first_verdict
from benchmarks.simulate.worlds import Floats, Integers
from services.feedback_service.domain.confidence import ConfidenceSequence, confidence_sequence
from services.feedback_service.domain.spreads import spread_of
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.metric_sums import DayTotals
from services.feedback_service.domain.sums.units import BUCKETS

LOOKS_A_DAY = 4


@dataclass(frozen=True, slots=True)
class Values:
    """A value for each row in the order of time; every array has shape (rows,).

    `values` are those of the row's own variant in `arms` (0: the champion's), or where `arms` is None differences of
    pairs, challenger minus champion. `weights` are the rows that each stands for, None: itself.
    """

    values: Floats
    buckets: Integers
    arms: Integers | None = None
    weights: Floats | None = None

    def sums(self, start: int, end: int) -> tuple[ClusteredSums, ...]:
        """Those of champion and challenger, or of the pairs, over some of the rows."""
        weights = np.ones(end - start) if self.weights is None else self.weights[start:end]
        arms = np.zeros(end - start, dtype=np.int64) if self.arms is None else self.arms[start:end]
        count = 1 if self.arms is None else 2
        keys = arms * BUCKETS + self.buckets[start:end]
        rows, totals = (
            np.bincount(keys, added, minlength=count * BUCKETS).astype(np.float64).reshape(count, BUCKETS)
            for added in (weights, weights * self.values[start:end])
        )
        return tuple(ClusteredSums(rows[arm], totals[arm]) for arm in range(count))


def looks_at(values: Values, ends: Iterable[int]) -> Iterator[ConfidenceSequence | None]:
    """The look at the first `end` rows for each of `ends`; None while there are too few."""
    sums = values.sums(0, 0)
    for start, end in pairwise([0, *ends]):
        sums = tuple(old + new for old, new in zip(sums, values.sums(start, end), strict=True))
        spreads = [spread_of(arm.rows) for arm in sums]
        if not all(spread.is_enough and not spread.is_dominated for spread in spreads):
            yield None
        elif len(sums) == 1:
            yield confidence_sequence(sums[0].estimate, alpha=ALPHA, tuning_n=TUNING_N)
        else:
            comparison = ClusteredSums.compare([(sums[0], sums[1])])
            effect = None if comparison is None else comparison.effect
            yield None if effect is None else confidence_sequence(effect, alpha=ALPHA, tuning_n=TUNING_N)


def rows_to_decide(values: Values, ends: Iterable[int]) -> tuple[float, float]:
    """The rows at the first look that excludes zero, and the effect's sign there; infinity and 0 where none does."""
    ends = list(ends)
    for end, look in zip(ends, looks_at(values, ends), strict=True):
        if look is not None and look.excludes_zero:
            return end, 1.0 if look.low > 0.0 else -1.0
    return np.inf, 0.0


def verdict_on_days(values: Values, days: Integers) -> tuple[int, float]:
    """As `first_verdict`, looked at LOOKS_A_DAY times a day.

    Args:
        values: of the rows.
        days: the number of each row's day, from 0 on without gaps.
    """
    last = np.bincount(days)
    firsts = np.cumsum(last) - last
    parts = np.arange(1, LOOKS_A_DAY + 1) / LOOKS_A_DAY
    ends = (firsts[:, None] + last[:, None] * parts).astype(int).ravel()
    return first_verdict(looks_at(values, ends.tolist()), *_day_totals(values, days), LOOKS_A_DAY)


def _day_totals(values: Values, days: Integers) -> tuple[DayTotals, DayTotals]:
    """Rows and totals by day of champion and challenger.

    Of pairs the champion has as many rows as the challenger and no total: the effect is the mean difference then.
    """
    weights = np.ones(len(days)) if values.weights is None else values.weights
    of_arms = []
    for arm in (0, 1):
        of_arm = weights if values.arms is None else weights * (values.arms == arm)
        added = np.zeros(len(days)) if values.arms is None and arm == 0 else values.values
        rows, totals = (np.bincount(days, of_arm * value).tolist() for value in (np.ones(len(days)), added))
        of_arms.append({day: {0: rows[day], 1: totals[day]} for day in range(len(rows)) if rows[day]})
    return of_arms[0], of_arms[1]
