"""When evidence that grows with rows and days will decide: many possible courses of it, and where each passes a bound.

The courses are the same few hundred draws at every call, stretched to what is known: the same question has one answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from contender.contracts.values import Hypothesis
from services.feedback_service.domain.confidence import half_width
from services.feedback_service.domain.day_sequence import MIN_DAYS, TUNING_DAYS
from services.feedback_service.domain.sequences import both_sides

_ROW_STEPS = 160
_INSTANT_DAYS = 1e-6

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Beyond = Callable[[float, float, float], Mask]
"""Of a side (1 or -1), a threshold and an alpha: where `side * effect` is shown to be above the threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is to be shown, and how it is looked for; effects are counted as gains: above zero is better.

    Attributes:
        hypothesis: what a verdict claims.
        margin: that of the hypothesis.
        alpha_rows: alpha of the sequence over rows; with a planned end as much again is spent there.
        alpha_days: alpha of the sequence over days.
        tuning_n: the rows at which the sequence is tightest.
        horizon_rows: the planned end.
    """

    hypothesis: Hypothesis = "superiority"
    margin: float = 0.0
    alpha_rows: float = 0.05
    alpha_days: float = 0.05
    tuning_n: int = 5000
    horizon_rows: int | None = None

    def shown(self, beyond: Beyond, alpha: float) -> Mask:
        """Where something is claimed, as `hypotheses.claim` has it."""
        one_sided, margin = both_sides(alpha), self.margin
        if self.hypothesis == "superiority":
            return beyond(1.0, 0.0, alpha) | beyond(-1.0, 0.0, alpha)
        if self.hypothesis == "non-inferiority":
            return beyond(1.0, -margin, one_sided) | beyond(-1.0, margin, one_sided)
        within = beyond(1.0, -margin, one_sided) & beyond(-1.0, -margin, one_sided)
        return within | beyond(1.0, margin, alpha) | beyond(-1.0, margin, alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayEvidence:
    """Whole days so far: their number, the effect over them, the variance of a day's effect, and what a verdict takes.

    `variance` holds the noise of a day's rows as well. `first` is how long from now the next day ends, in days.
    """

    cycle: int
    variance: float
    whole: int = 0
    effect: float = 0.0
    first: float = 1.0
    shown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RowEvidence:
    """Rows so far: their number, the effect over them, its variance per row (n se^2), and whether they show a claim."""

    variance: float
    n: float = 0.0
    effect: float = 0.0
    shown: bool = False


@dataclass(frozen=True, slots=True)
class Passages:
    """By course the rows and the days from now at which it decides, infinite where it does not; shape (courses,)."""

    rows: Floats
    days: Floats = field(default_factory=lambda: np.zeros(0))


@lru_cache(maxsize=4)
def _draws(courses: int, steps: int) -> tuple[Floats, Floats, Floats]:
    """Standard normal draws, uniform ones, and normal ones again, each of shape (courses, steps)."""
    random, shape = np.random.default_rng(20_260_711), (courses, steps)
    return random.standard_normal(shape), random.random(shape), random.standard_normal(shape)


def strata(courses: int) -> Floats:
    """A standard normal quantity, each course having an equal share of it; shape (courses,)."""
    quantiles: Floats = norm.ppf((np.arange(courses) + 0.5) / courses)
    return quantiles


def by_rows(claim: Claim, evidence: RowEvidence, truth: Floats, *, first: float, limit: float) -> Passages:
    """The passages of the sequence over rows alone.

    Args:
        claim: what is to be shown.
        evidence: the rows so far.
        truth: the effect by course, shape (courses,).
        first: the rows of the first look.
        limit: the rows of the last.
    """
    n = np.geomspace(first, max(limit, 1.01 * first), _ROW_STEPS)
    if claim.horizon_rows is not None and n[0] < claim.horizon_rows <= n[-1]:
        n[np.searchsorted(n, claim.horizon_rows)] = claim.horizon_rows
    steps = np.diff(n, prepend=evidence.n)
    normal, uniform, _ = _draws(len(truth), len(n))
    sums = evidence.n * evidence.effect + np.cumsum(
        truth[:, None] * steps + np.sqrt(evidence.variance * steps) * normal, axis=1
    )
    shown = _rows_shown(claim, evidence, n, sums, uniform)
    return Passages(_first(shown, n) - evidence.n)


def by_days(
    claim: Claim, rows: RowEvidence, days: DayEvidence, truth: Floats, *, per_day: float, limit: int
) -> Passages:
    """The passages of both sequences, looked at where whole cycles end.

    Args:
        claim: what is to be shown.
        rows: the rows so far.
        days: the whole days so far.
        truth: the effect by course, shape (courses,).
        per_day: rows a day.
        limit: the days after which nobody looks any more.
    """
    to_first = days.cycle - days.whole % days.cycle
    ends = np.arange(to_first, max(limit, to_first) + 1, days.cycle)
    steps = np.diff(ends, prepend=0)
    normal, uniform, _ = _draws(len(truth), len(ends))
    changes = truth[:, None] + np.sqrt(days.variance / steps) * normal
    left = days.first + ends - 1.0
    n = rows.n + per_day * np.maximum(left, _INSTANT_DAYS)
    sums = rows.n * rows.effect + np.cumsum(np.diff(n, prepend=rows.n) * changes, axis=1)
    means = (days.whole * days.effect + np.cumsum(steps * changes, axis=1)) / (days.whole + ends)
    both = _rows_shown(claim, rows, n, sums, uniform) & _days_shown(claim, days, means, steps)
    return Passages(_first(both, n) - rows.n, _first(both, left))


def _rows_shown(claim: Claim, evidence: RowEvidence, n: Floats, sums: Floats, uniform: Floats) -> Mask:
    """Where the rows show a claim, shape (courses, looks). Looks are continuous: a Brownian bridge may pass between.

    Source of the bridge: Karatzas, Shreve, Brownian Motion and Stochastic Calculus, section 4.3, for a linear bound.
    """
    if evidence.shown:
        return np.ones(sums.shape, dtype=np.bool_)

    def beyond(side: float, threshold: float, alpha: float) -> Mask:
        wide = half_width(np.sqrt(evidence.variance / n), n, alpha=alpha, tuning_n=claim.tuning_n)
        gaps = n * (wide + threshold) - side * sums
        passed: Mask = gaps <= 0.0
        between = np.exp(-2.0 * gaps[:, :-1] * gaps[:, 1:] / (evidence.variance * np.diff(n)))
        passed[:, 1:] |= (gaps[:, :-1] > 0.0) & (uniform[:, 1:] < between)
        if claim.horizon_rows is not None and evidence.n < claim.horizon_rows <= n[-1]:
            at = np.searchsorted(n, claim.horizon_rows)
            reach = norm.ppf(1.0 - alpha / 2.0) * np.sqrt(evidence.variance / n[at])
            passed[:, at] |= side * sums[:, at] / n[at] - reach > threshold
        return np.logical_or.accumulate(passed, axis=1)

    return claim.shown(beyond, claim.alpha_rows)


def _days_shown(claim: Claim, days: DayEvidence, means: Floats, steps: NDArray[np.int64]) -> Mask:
    """Where the days show a claim at the ends of cycles, shape (courses, cycles).

    Their variance is estimated as `day_sequence` does it, around one mean within the first cycle and afterwards around
    that of each day of the cycle: every day beyond the means adds a square that is independent of them.
    """
    if days.shown:
        return np.ones(means.shape, dtype=np.bool_)
    is_first = days.whole < days.cycle
    adding = steps - (np.arange(len(steps)) == 0) * (days.whole == 0)
    squares = np.cumsum(_chi_square(adding, _draws(*means.shape)[2]), axis=1)
    squares += max(days.whole - (1 if is_first else days.cycle), 0)
    if is_first:
        squares[:, 1:] -= squares[:, :1]
    k = days.whole + np.cumsum(steps)
    free = k - np.where(k <= days.cycle, 1, days.cycle)
    known = (k >= MIN_DAYS) & (free > 0)
    error = np.where(known, np.sqrt(days.variance * squares / np.maximum(free, 1) / k), inf)

    def beyond(side: float, threshold: float, alpha: float) -> Mask:
        wide = half_width(error, k, alpha=alpha, tuning_n=TUNING_DAYS)
        return np.logical_or.accumulate(side * means - wide > threshold, axis=1)

    return claim.shown(beyond, claim.alpha_days)


def _chi_square(degrees: NDArray[np.int64], normal: Floats) -> Floats:
    """Chi-square quantities from normal ones (Wilson, Hilferty, PNAS 1931); zero where there are no degrees."""
    spread = 2.0 / (9.0 * np.maximum(degrees, 1))
    quantities: Floats = degrees * np.maximum(1.0 - spread + np.sqrt(spread) * normal, 0.0) ** 3
    return quantities


def _first(shown: Mask, values: NDArray[np.floating[Any]]) -> Floats:
    """The value at the first look that shows a claim, infinite where none does; shape (courses,)."""
    reached: Floats = np.where(shown.any(axis=1), values[shown.argmax(axis=1)], inf)
    return reached
