"""Estimates with their standard errors, and the comparison of two variants that they give, epoch by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

MIN_OBSERVATIONS = 20
"""Rows (buckets with rows, where units repeat) that each arm needs before an epoch counts.

An epoch weighs as many rows as it has, so one with 10,000 rows of the champion and 2 of the challenger would bring
the noise of 2 rows in with the weight of 10,000, and a standard error that 2 rows cannot give.
"""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, or a difference of two, with its standard error (infinite while unknown) and the rows behind it."""

    value: float
    standard_error: float
    n: int

    @property
    def varies(self) -> bool:
        """Whether the data say how much the value varies: a positive and finite standard error."""
        return isfinite(self.standard_error) and self.standard_error > 0.0


@dataclass(frozen=True, slots=True)
class ConfidenceSequence:
    """An estimate at one look: its interval `low` to `high`, the p-value against zero, and the rows behind it.

    The interval is unbounded and p is 1 as long as the data do not say how much the estimate varies.
    """

    estimate: float
    low: float
    high: float
    p: float
    n: int

    @property
    def is_bounded(self) -> bool:
        """Whether the data say how much the estimate varies."""
        return isfinite(self.low) and isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero, which is the case exactly when p < alpha."""
        return self.low > 0.0 or self.high < 0.0

    def after(self, earlier_p: float) -> "ConfidenceSequence":
        """This look with p as the running minimum; `earlier_p` is the smallest p of the looks before."""
        return replace(self, p=min(self.p, earlier_p))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two variants over the same epochs with the same weights: `effect` is challenger minus champion."""

    champion: Estimate
    challenger: Estimate
    effect: Estimate


def effect(champion: Estimate, challenger: Estimate) -> Estimate:
    """Challenger minus champion within one epoch, for arms whose rows are independent of each other.

    The standard error is the larger of two: the one from each arm's own variance, and the one from their common
    (within-arm, pooled) variance. They agree for arms of one size. A small arm that has seen few of the rare events
    reports too small a variance of its own: at a share of 10 % and an event rate of 1 %, over 100 looks at 20,000 rows
    and alpha 5 %, the first alone gives 25 % false alarms, the larger 0.3 %.
    """
    n = champion.n + challenger.n
    difference = challenger.value - champion.value
    own = sqrt(champion.standard_error**2 + challenger.standard_error**2)
    variance = sum((arm.n * arm.standard_error) ** 2 for arm in (champion, challenger)) / n if n else inf
    common = sqrt(variance / champion.n + variance / challenger.n) if champion.n and challenger.n else inf
    return Estimate(difference, never_certain(difference, max(own, common), n), n)


def compare(epochs: Sequence[tuple[Estimate, Estimate]]) -> Comparison | None:
    """Champion against challenger over epochs, each epoch a pair (champion, challenger), rows all independent.

    The effect is taken within epochs and combined with the weights w_e of `weights_of` and variance sum w_e^2 se_e^2
    (post-stratification; Miratrix, Sekhon, Yu, JRSS B 2013), so a base rate that drifts while the allocation changes
    does not pass for an effect. The arms' own means carry the same weights, and so differ by the effect.

    Returns:
        The comparison, or None while no epoch has MIN_OBSERVATIONS rows and a standard error in both arms.
    """
    counted = [epoch for epoch in epochs if all(_counts(arm) for arm in epoch)]
    if not counted:
        return None
    effects = [effect(champion, challenger) for champion, challenger in counted]
    weights = weights_of([(champion.n, challenger.n) for champion, challenger in counted])
    champion, challenger = (_combined([epoch[arm] for epoch in counted], weights) for arm in (0, 1))
    return Comparison(champion, challenger, _combined(effects, weights))


def _counts(arm: Estimate) -> bool:
    return arm.n >= MIN_OBSERVATIONS and isfinite(arm.standard_error)


def _combined(estimates: Sequence[Estimate], weights: Floats) -> Estimate:
    value = float(np.dot(weights, [estimate.value for estimate in estimates]))
    standard_error = length(weights * np.array([estimate.standard_error for estimate in estimates]))
    return Estimate(value, standard_error, sum(estimate.n for estimate in estimates))


def weights_of(rows: Sequence[tuple[float, float]]) -> Floats:
    """The weights of epochs by the rows of champion and challenger, shape (epochs,); they add up to 1."""
    weights = np.array([overlap_weight(*arms) for arms in rows])
    normalised: Floats = weights / weights.sum()
    return normalised


def overlap_weight(champion_rows: float, challenger_rows: float) -> float:
    """What an epoch's effect weighs: n p (1 - p), the inverse of its variance for rows that vary alike.

    Weights by rows alone would have several times the variance over a ramp (Li, Morgan, Zaslavsky, Balancing covariates
    via propensity score weighting, JASA 2018).
    """
    return champion_rows * challenger_rows / (champion_rows + challenger_rows)


def length(vector: Floats) -> float:
    """The length of a vector: the standard error of a sum of independent influences."""
    return float(np.sqrt(np.square(vector).sum()))


def never_certain(difference: float, standard_error: float, observations: int) -> float:
    """The standard error, or where neither arm varies at all, that of both arms taken as one population.

    Two arms that are constant and apart are strong evidence but not certainty: under no difference the variance is
    that of all rows together, which comes to difference^2 / observations whatever the sizes of the arms. Two arms that
    are constant and equal (no event yet) stay at zero, which the confidence sequence takes for unknown.
    """
    return standard_error if standard_error > 0.0 else abs(difference) / sqrt(observations)
