"""When a running experiment may be decided, if its effect stays as it is."""

from collections.abc import Sequence
from math import isfinite

import msgspec
import numpy as np

from contender.contracts.feedback_service import DayPoint, Forecast, Verdict
from services.feedback_service.domain import passages, sentences
from services.feedback_service.domain.assessing import Assessment, Circumstances
from services.feedback_service.domain.confidence import half_width
from services.feedback_service.domain.day_sequence import MIN_DAYS, TUNING_DAYS
from services.feedback_service.domain.design import ExperimentDesign
from services.feedback_service.domain.traffic import day_at, maturing_s, rows_per_day

COURSES = 256
YEAR_DAYS = 365
MOST_TIMES = 20.0
"""The most rows that an experiment may still have, in units of those so far (or of N*, before it has so many).

It is less where a year brings less. Of the effects that an estimate of exactly zero allows, four in ten would be shown
with 20 times the rows: none is in reach then. An estimate one standard error away from zero is.
"""

_OPEN = ("collecting", "leading")


def forecast_of(
    given: Circumstances, assessment: Assessment, verdict: Verdict, timeline: Sequence[DayPoint]
) -> Forecast | None:
    """The forecast for one challenger; None where it is decided, withheld, paused or ended, or nothing varies yet.

    Rows are those of both variants, as the effect counts them. The forecast is the median of the courses that the
    evidence may take, over what is still uncertain about the effect (`_truth`).

    Args:
        given: what all challengers have in common.
        assessment: the look at the challenger.
        verdict: where it stands.
        timeline: its effect day by day.
    """
    design, effect = given.design, assessment.evidence.effect
    is_collecting = assessment.evidence.status not in ("stopped", "paused")
    if verdict.status not in _OPEN or not is_collecting or effect is None or not isfinite(effect.look.high):
        return None
    look, sign = effect.look, -1.0 if design.metric.lower_is_better else 1.0
    unit = float(half_width(1.0, look.n, alpha=design.alpha_rows, tuning_n=design.tuning_n))
    variance = ((look.high - look.estimate) / unit) ** 2 * look.n
    claim = passages.Claim(
        hypothesis=design.hypothesis,
        margin=design.margin,
        alpha_rows=design.alpha_rows,
        alpha_days=design.alpha_each,
        tuning_n=design.tuning_n,
        horizon_rows=design.horizon_rows,
    )
    rows = passages.RowEvidence(
        variance=variance, n=look.n, effect=sign * look.estimate, shown=verdict.status == _OPEN[1]
    )
    per_day, reached = _pace(given, assessment.challenger, look.n)
    most = MOST_TIMES * max(look.n, design.tuning_n)
    if not design.cycle_days:
        if rows.shown:  # it waits for late labels alone
            return Forecast(0, 0.0)
        limit = min(most, YEAR_DAYS * per_day) if per_day else most
        truth = _truth(design, rows, variance)
        return _median(passages.by_rows(claim, rows, truth, first=look.n * 1.001, limit=look.n + limit), per_day)
    if not per_day:
        return Forecast()
    days = _days(given, rows, sign, timeline, (per_day, reached))
    truth = _truth(design, rows, max(variance, days.variance * per_day))
    limit_days = min(YEAR_DAYS, max(int(most / per_day), 4 * design.cycle_days))
    return _median(passages.by_days(claim, rows, days, truth, per_day=per_day, limit=limit_days), per_day)


def _truth(design: ExperimentDesign, rows: passages.RowEvidence, variance: float) -> passages.Floats:
    """The effect that each course has, shape (COURSES,).

    It is normal around the estimate, drawn in towards zero by what is plausible: effects of the size that N* suits,
    which is where an interval that is tightest at N* rows is as narrow as the effect there. By the estimate alone, 31
    to 42 % of experiments were decided by the stated median at a fifth of N*: a first estimate overstates.
    """
    plausible = rows.variance / design.tuning_n * float(half_width(1.0, 1, alpha=design.alpha_rows, tuning_n=1)) ** 2
    error = variance / rows.n
    weight = plausible / (plausible + error)
    effects: passages.Floats = weight * rows.effect + np.sqrt(weight * error) * passages.strata(COURSES)
    return effects


def _median(found: passages.Passages, per_day: float) -> Forecast:
    rows = float(np.quantile(found.rows, 0.5, method="inverted_cdf"))
    if not isfinite(rows):
        return Forecast(reachable=False)
    days = found.days if found.days.size else found.rows / per_day if per_day else None
    left = None if days is None else round(max(0.0, float(np.quantile(days, 0.5, method="inverted_cdf"))), 2)
    return Forecast(max(0, round(rows)), left)


def _pace(given: Circumstances, challenger: str, n: int) -> tuple[float, float]:
    """Rows of the comparison in a day, 0 while unknown; and up to when rows have matured, in days."""
    design = given.design
    if given.watermark is None:
        return 0.0, 0.0
    arms = [arm for pair in given.pairs(challenger) for arm in pair]
    matured = sum(arm.matured.counts.predictions for arm in arms)
    reached = day_at(given.watermark - maturing_s(design.window_s), design.time_zone)
    started = design.started_at if design.clock == "wall" else None
    began = None if started is None else day_at(started, design.time_zone)
    pace = rows_per_day([arm.day_rows for arm in arms], given.whole, reached, began)
    return pace * n / matured if matured else 0.0, reached


def _days(
    given: Circumstances,
    rows: passages.RowEvidence,
    sign: float,
    timeline: Sequence[DayPoint],
    pace: tuple[float, float],
) -> passages.DayEvidence:
    """The whole days so far; while they do not say how much days vary, it is as rows do."""
    design, whole, (per_day, reached) = given.design, len(given.whole), pace
    variance = rows.variance / per_day
    effect, newest = rows.effect, timeline[-1] if timeline else None
    if newest is not None:
        effect = sign * newest.estimate
    if newest is not None and newest.high is not None and whole >= MIN_DAYS:
        unit = float(half_width(1.0, whole, alpha=design.alpha_each, tuning_n=TUNING_DAYS))
        variance = ((newest.high - newest.estimate) / unit) ** 2 * whole
    next_end = given.whole.stop + 1 if whole else int(reached) + 1
    first = min(max(next_end - reached, 0.0), 2.0)
    return passages.DayEvidence(cycle=design.cycle_days, variance=variance, whole=whole, effect=effect, first=first)


def with_forecast(verdict: Verdict, forecast: Forecast | None) -> Verdict:
    """The verdict with the forecast at the end of its sentence."""
    if forecast is None:
        return verdict
    return msgspec.structs.replace(verdict, sentence=verdict.sentence + sentences.forecast(forecast))
