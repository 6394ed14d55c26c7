"""Days as observations: which days of an experiment are whole, and what the effect over whole cycles of them says.

Rows of one day share its weather, its weekday, its campaign. A verdict that lasts must hold for days as it holds for
rows, over whole cycles: real flights declare the worse of two models better in 28 % of starts by rows alone.
"""

from collections.abc import Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np

from contender.contracts.feedback_service import DayPoint
from contender.contracts.values import ClockName
from services.feedback_service.domain.confidence import ConfidenceSequence, confidence_sequence
from services.feedback_service.domain.groups import COHORTS_PER_WINDOW, SHORTEST_COHORT_S
from services.feedback_service.domain.memory import RunningSequence
from services.feedback_service.domain.sums import MetricSums
from services.feedback_service.domain.sums.estimates import Estimate
from services.feedback_service.domain.sums.metric_sums import DayEffect, DayTotals

TUNING_DAYS = 28
"""Days at which the sequence over days is tightest."""

MIN_DAYS = 5
"""Days with rows before their spread says anything: with fewer the sequence is too narrow by far."""

HALF_HOUR_S = 1800

_EPOCH = date(1970, 1, 1).toordinal()


def whole_days(
    seen: Sequence[int],
    *,
    clock: ClockName,
    time_zone: ZoneInfo,
    watermark: float | None,
    window_s: float,
    began_at: float | None,
    stopped_at: float | None,
) -> range:
    """The numbers of the whole days of an experiment, without gaps; they count from 1970-01-01 in its time zone.

    A day is whole once its end, the window and the width of a cohort have passed on the watermark. Under the clock
    `wall` the days of the start and of the stop are not, but for what falls within half an hour of midnight; a replay
    has its rows day by day.

    Args:
        seen: the days that have matured rows.
        clock: that of the experiment.
        time_zone: that of the experiment.
        watermark: up to where rows have matured but for their window, in seconds since the Unix epoch.
        window_s: that of the experiment.
        began_at: when its rows begin, where that is known.
        stopped_at: when it was stopped.
    """
    if watermark is None or not seen:
        return range(0)
    reached = reached_day(watermark, window_s, time_zone)
    if reached is None:
        return range(0)
    first, end = min(seen), reached  # the day that has been reached has not ended
    if clock == "wall":
        first += 1
        begins = None if began_at is None else _day_of(began_at + 86_400 - HALF_HOUR_S, time_zone)
        first = first if begins is None else begins
        ends = None if stopped_at is None else _day_of(stopped_at + HALF_HOUR_S, time_zone)
        end = end if ends is None else min(end, ends)
    return range(first, max(first, end))


def reached_day(watermark: float, window_s: float, time_zone: ZoneInfo) -> int | None:
    """The number of the day before which all days have ended and matured; None beyond the calendar."""
    return _day_of(watermark - window_s - max(SHORTEST_COHORT_S, window_s / COHORTS_PER_WINDOW), time_zone)


def _day_of(seconds: float, time_zone: ZoneInfo) -> int | None:
    """The number of the day at a time; None beyond the calendar."""
    try:
        return datetime.fromtimestamp(seconds, time_zone).toordinal() - _EPOCH
    except (OverflowError, ValueError, OSError):
        return None


def cycle_effects(
    sums: type[MetricSums], epochs: Sequence[tuple[DayTotals, DayTotals]], whole: range, cycle_days: int
) -> list[Estimate]:
    """The effect at the end of each whole cycle, over all days up to it; `n` counts the days that have rows.

    Args:
        sums: the type of sums that the totals belong to.
        epochs: champion and challenger, each totals by day.
        whole: the whole days.
        cycle_days: the days of a cycle.
    """
    effects: list[Estimate] = []
    for end in range(cycle_days, len(whole) + 1, cycle_days):
        days = whole[:end]
        effect = sums.day_effect([(_of(champion, days), _of(challenger, days)) for champion, challenger in epochs])
        estimate = None if effect is None else _estimate(effect, whole.start, end // cycle_days, cycle_days)
        if estimate is not None:
            effects.append(estimate)
    return effects


def day_by_day(
    sums: type[MetricSums],
    epochs: Sequence[tuple[DayTotals, DayTotals]],
    whole: range,
    cycle_days: int,
    alpha: float,
) -> list[DayPoint]:
    """The effect over all whole days up to each, with the sequence over days; to be looked at, not to decide by.

    Args:
        sums: the type of sums that the totals belong to.
        epochs: champion and challenger, each totals by day.
        whole: the whole days.
        cycle_days: the days of a cycle; 0: none.
        alpha: that of the sequence.
    """
    points = []
    for end in range(1, len(whole) + 1):
        days = whole[:end]
        effect = sums.day_effect([(_of(champion, days), _of(challenger, days)) for champion, challenger in epochs])
        if effect is None:
            continue
        estimate = _estimate(effect, whole.start, end // cycle_days if cycle_days else 1, cycle_days or 1)
        look = None if estimate is None else confidence_sequence(estimate, alpha=alpha, tuning_n=TUNING_DAYS)
        low, high = (None, None) if look is None or not np.isfinite(look.low) else (look.low, look.high)
        points.append(DayPoint(date.fromordinal(_EPOCH + days[-1]).isoformat(), effect.value, low, high))
    return points


def _of(totals: DayTotals, days: range) -> DayTotals:
    return {day: totals[day] for day in totals if day in days}


def _estimate(effect: DayEffect, first: int, cycles: int, cycle_days: int) -> Estimate | None:
    """The effect with the standard error of days.

    Within the first cycle the days vary as they do; afterwards around the mean of their own day of the cycle, since a
    whole cycle has all of them alike. The factor k / (k - 1), or k / (k - cycle), is that for the means taken out.
    """
    k = len(effect.days)
    influence, means = effect.influence, 1
    if cycles > 1:
        positions = (np.array(effect.days) - first) % cycle_days
        totals = np.bincount(positions, weights=influence, minlength=cycle_days)
        counts = np.bincount(positions, minlength=cycle_days)
        influence = influence - (totals / np.maximum(counts, 1))[positions]
        means = int(np.count_nonzero(counts))
    if k < MIN_DAYS or k <= means:
        return None
    return Estimate(effect.value, float(np.sqrt(k / (k - means) * np.square(influence).sum())), k)


def day_sequence(effects: Sequence[Estimate], alpha: float) -> tuple[ConfidenceSequence, RunningSequence] | None:
    """The look at the end of the last whole cycle, and what the looks at all ends leave; None before the first."""
    running, look = RunningSequence(), None
    for effect in effects:
        look = confidence_sequence(effect, alpha=alpha, tuning_n=TUNING_DAYS)
        running = running.after_or_anew(look)
    return None if look is None else (look, running)


def cycles_wanted(cycle_days: int) -> int:
    """The whole days that a verdict takes at least: whole cycles, of at least MIN_DAYS days."""
    return -(-MIN_DAYS // cycle_days) * cycle_days if cycle_days else 0
