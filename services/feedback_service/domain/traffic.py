"""How many rows of an experiment mature in a day."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from services.feedback_service.domain.days import DAY_S
from services.feedback_service.domain.groups import COHORTS_PER_WINDOW, SHORTEST_COHORT_S

RECENT_DAYS = 7
"""The newest whole days that tell the pace: a ramp makes older ones slower."""

_LEAST_DAYS = 60.0 / DAY_S


def maturing_s(window_s: float) -> float:
    """How long after its prediction a row has matured, in seconds: the window, and the width of a cohort."""
    return window_s + max(SHORTEST_COHORT_S, window_s / COHORTS_PER_WINDOW)


def day_at(seconds: float, time_zone: ZoneInfo) -> float:
    """A time in days from 1970-01-01 in a time zone."""
    try:
        offset = datetime.fromtimestamp(seconds, time_zone).utcoffset()
    except (OverflowError, ValueError, OSError):  # beyond the calendar
        offset = None
    return (seconds + (offset.total_seconds() if offset else 0.0)) / DAY_S


def rows_per_day(day_rows: Sequence[Mapping[int, int]], whole: range, reached: float, began: float | None) -> float:
    """The matured rows of some arms in a day; 0 where that is not known.

    Args:
        day_rows: of each arm its matured rows by day.
        whole: the whole days.
        reached: up to when rows have matured, as `day_at` gives it.
        began: when the first came; None: at the beginning of the first day that has any.
    """
    recent = whole[-RECENT_DAYS:]
    if recent:
        return sum(arm.get(day, 0) for arm in day_rows for day in recent) / len(recent)
    first = min((day for arm in day_rows for day in arm), default=reached)
    elapsed = reached - (first if began is None else began)
    return sum(sum(arm.values()) for arm in day_rows) / elapsed if elapsed > _LEAST_DAYS else 0.0
