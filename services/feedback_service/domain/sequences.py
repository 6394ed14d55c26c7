"""The looks at one effect over rows: with those before them, and with the one look at a planned end."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import msgspec

from services.feedback_service.domain.confidence import ConfidenceSequence, confidence_sequence
from services.feedback_service.domain.memory import ChallengerMemory, FixedLook, RunningSequence
from services.feedback_service.domain.sums.estimates import Estimate

_HIGHEST_ALPHA = 0.999

LookAt = Callable[[float], ConfidenceSequence | None]
"""An alpha to the look at it, or to None where the estimate's standard error says all."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """What is known of an effect: the interval that holds it on both sides, and the one that holds it on either."""

    two_sided: RunningSequence
    one_sided: RunningSequence


@dataclass(frozen=True, slots=True)
class RowLook:
    """A look at the effect over rows: alone, and what it leaves with those before."""

    look: ConfidenceSequence
    intervals: Intervals


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """How one metric's looks may be wrong.

    Attributes:
        alpha: the probability that any look is.
        tuning_n: the rows at which the interval is tightest.
        comparisons: the challengers that share the experiment's alpha: p-values are multiplied by it.
        horizon_rows: a planned end, for the deciding metric: as much again is spent on one look there.
    """

    alpha: float
    tuning_n: int
    comparisons: int = 1
    horizon_rows: int | None = None


def both_sides(alpha: float) -> float:
    """The alpha of the interval whose either end misses the truth with probability `alpha`."""
    return min(2.0 * alpha, _HIGHEST_ALPHA)


def look_at_rows(
    estimate: Estimate,
    spending: Spending,
    memory: ChallengerMemory,
    name: str,
    *,
    decided: bool,
    look_at: LookAt = lambda _: None,
) -> tuple[RowLook, ChallengerMemory]:
    """Look at an effect over rows, and remember the look.

    Args:
        estimate: the effect; n counts the rows of both arms.
        spending: alpha and where it is spent.
        memory: the looks at the challenger before.
        name: the metric that the looks are kept by.
        decided: whether a verdict rests on the looks: those that contradict each other then stay so.
        look_at: gives the looks of an effect that has no standard error. There is none at the planned end then.
    """
    look, one_sided = (
        look_at(alpha) or confidence_sequence(estimate, alpha=alpha, tuning_n=spending.tuning_n)
        for alpha in (spending.alpha, both_sides(spending.alpha))
    )
    intervals = Intervals(memory.sequences.get(name, RunningSequence()), memory.one_sided.get(name, RunningSequence()))
    if look.is_bounded:
        after = RunningSequence.after if decided else RunningSequence.after_or_anew
        intervals = Intervals(after(intervals.two_sided, look), after(intervals.one_sided, one_sided))
        memory = msgspec.structs.replace(
            memory,
            sequences={**memory.sequences, name: intervals.two_sided},
            one_sided={**memory.one_sided, name: intervals.one_sided},
        )
    if spending.horizon_rows is not None:
        if memory.horizon is None and estimate.varies and estimate.n >= spending.horizon_rows:
            fixed = FixedLook(estimate.value, estimate.standard_error, estimate.n)
            memory = msgspec.structs.replace(memory, horizon=fixed)
        intervals = Intervals(
            _with_horizon(intervals.two_sided, memory.horizon, spending.alpha),
            _with_horizon(intervals.one_sided, memory.horizon, both_sides(spending.alpha)),
        )
    adjusted = Intervals(
        _adjusted(intervals.two_sided, spending.comparisons), _adjusted(intervals.one_sided, spending.comparisons)
    )
    return RowLook(look, adjusted), memory


def _with_horizon(running: RunningSequence, horizon: FixedLook | None, alpha: float) -> RunningSequence:
    """The sequence at half of alpha with the fixed look at the other half, by the union bound; p counts twice."""
    if horizon is not None:
        running = running.after(fixed_look(horizon.estimate, alpha=alpha))
    return msgspec.structs.replace(running, p=min(1.0, 2.0 * running.p))


def fixed_look(estimate: Estimate, *, alpha: float) -> ConfidenceSequence:
    """The interval of a single look at a fixed number of rows, by the normal distribution; it is valid there alone."""
    normal = NormalDist()
    reach = normal.inv_cdf(1.0 - alpha / 2.0) * estimate.standard_error
    p = 2.0 * normal.cdf(-abs(estimate.value) / estimate.standard_error)
    return ConfidenceSequence(estimate.value, estimate.value - reach, estimate.value + reach, p, estimate.n)


def _adjusted(running: RunningSequence, comparisons: int) -> RunningSequence:
    return msgspec.structs.replace(running, p=min(1.0, comparisons * running.p))
