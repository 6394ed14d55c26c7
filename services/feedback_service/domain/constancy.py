"""Whether the effect stays as it is: the effect of each week alone, and a test of a trend over days."""

from collections.abc import Sequence
from datetime import date
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from contender.contracts.feedback_service import Constancy, DayPoint
from services.feedback_service.domain.confidence import p_value
from services.feedback_service.domain.day_sequence import MIN_DAYS, TUNING_DAYS
from services.feedback_service.domain.sums.mean import ClusteredSums, DayEffects
from services.feedback_service.domain.sums.metric_sums import DayTotals

_EPOCH = date(1970, 1, 1).toordinal()

Epochs = Sequence[tuple[DayTotals, DayTotals]]
"""Champion and challenger by epoch, each the totals of a mean by day."""


def span_days(cycle_days: int) -> int:
    """The days that are looked at together: a cycle, or 7 where it is none or shorter."""
    return max(cycle_days, 7)


def week_by_week(epochs: Epochs, whole: range, cycle_days: int, alpha: float) -> list[DayPoint]:
    """The effect of each whole span alone, under its last day, with an interval over its days.

    Each is looked at once it is whole, so its interval is that of a single look: Student's t over the days, around the
    effect as the sum of the influences of days has it. It holds the truth of that week with probability 1 - alpha.
    """
    points, span = [], span_days(cycle_days)
    for end in range(span, len(whole) + 1, span):
        days = whole[end - span : end]
        effect = ClusteredSums.day_effect([(_of(champion, days), _of(other, days)) for champion, other in epochs])
        if effect is None:
            continue
        low = high = None
        k = len(effect.days)
        if k >= MIN_DAYS:
            error = sqrt(k / (k - 1) * float(np.square(effect.influence).sum()))
            reach = float(stdtrit(k - 1, 1.0 - alpha / 2.0)) * error
            low, high = effect.value - reach, effect.value + reach
        points.append(DayPoint(date.fromordinal(_EPOCH + days[-1]).isoformat(), effect.value, low, high))
    return points


def _of(totals: DayTotals, days: range) -> DayTotals:
    return {day: totals[day] for day in totals if day in days}


def constancy(epochs: Epochs, whole: range, cycle_days: int, alpha: float, comparisons: int = 1) -> Constancy:
    """Test that the effect has no trend over the whole days: the slope of the effects of days on time.

    It is looked for where a span ends, as `slope_z` has it, with the p-value of the sequence over days at that z and
    number of days. The days of past spans stay in the sums, so every look computes those at all ends again, and the
    least p needs no memory. The z of a slope is not that of a mean, for which the sequence is made: its looks resemble
    each other less, so that the sequence is no proven bound here. Simulated, a constant effect is flagged in less than
    alpha of runs over 12 weeks (`benchmarks.simulate.segments`).

    Args:
        epochs: the totals of a mean by day.
        whole: the whole days.
        cycle_days: the days of a cycle; 0: none.
        alpha: that of one challenger.
        comparisons: the challengers that share alpha: p is multiplied by it.
    """
    effects, span = ClusteredSums.effects_of_days(epochs), span_days(cycle_days)
    least, change = None, None
    for end in range(span, len(whole) + 1, span):
        days = whole[:end]
        slope = slope_z(effects.within(days), whole.start, cycle_days)
        if slope is None:
            continue
        change, z, k = slope
        p = float(p_value(z, 1.0, k, alpha=alpha, tuning_n=TUNING_DAYS))
        least = p if least is None else min(least, p)
    return Constancy(None if least is None else min(1.0, comparisons * least), change)


def slope_z(effects: DayEffects, first: int, cycle_days: int) -> tuple[float, float, int] | None:
    """The change of the effect a day, its z, and the number of days; None while they are too few or do not vary.

    Weighted least squares of the effects of days on time, each day around the weighted mean of its own day of the
    cycle, in time as in effect: a weekday that is better each week is no trend. With k days and m means taken out, k -
    m - 1 degrees of freedom are left. z is the normal quantile at the probability of Student's t, which few days have.
    Source: Draper and Smith, Applied Regression Analysis, 1998, chapters 5 and 9.
    """
    k = len(effects.days)
    positions = (effects.days - first) % max(cycle_days, 1)
    freedom = k - len(np.unique(positions)) - 1
    if k < MIN_DAYS or freedom < 1:
        return None
    weights = effects.weights / effects.weights.mean()
    time = _around_means(effects.days.astype(np.float64), weights, positions)
    values = _around_means(effects.values, weights, positions)
    spread = float((weights * np.square(time)).sum())
    if spread <= 0.0:
        return None
    slope = float((weights * time * values).sum()) / spread
    variance = float((weights * np.square(values - slope * time)).sum()) / freedom / spread
    if variance <= 0.0:
        return None
    return slope, float(-ndtri(stdtr(freedom, -abs(slope) / sqrt(variance)))), k


def _around_means(
    values: NDArray[np.float64], weights: NDArray[np.float64], positions: NDArray[np.int64]
) -> NDArray[np.float64]:
    sums, totals = np.bincount(positions, weights), np.bincount(positions, weights * values)
    around: NDArray[np.float64] = values - (totals / np.where(sums > 0.0, sums, 1.0))[positions]
    return around
