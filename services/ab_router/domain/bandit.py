"""Thompson sampling: weights follow the probability that a variant is the best one.

Only matured rows count: a label that has not come yet says nothing. Taking it for a negative starves an arm whose
labels are slow. Each move opens an epoch whose probabilities are recorded, so that effects within epochs stay honest.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log, sqrt

from contender.contracts.experiments import Bandit, ExperimentRevision
from contender.contracts.feedback_service import Interval, Results
from services.ab_router.domain.hashing import STEPS
from services.ab_router.domain.holds import Hold, Move, doubt, pause_between, unjudged_guardrail

DRAWS = 10_000
"""Draws from the posterior: the error of a probability is half a hundredth at most."""

SMALLEST_MOVE = 0.01
"""The least change of a weight for which an epoch is opened; it is larger than the error of the draws."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is known of a variant's gain over the champion: normal, by the central limit theorem. More is better."""

    mean: float
    standard_error: float


def next_weights(
    bandit: Bandit, revision: ExperimentRevision, results: Results, now: float, age_limit_s: float
) -> Move | Hold:
    """The next weights of a running experiment, or why they are held.

    Args:
        bandit: its floor, and what a move needs.
        revision: the newest one of the experiment.
        results: as the feedback service gives them.
        now: in seconds since the Unix epoch.
        age_limit_s: results that are older are no reason for a move.
    """
    hold = pause_between(revision, bandit.seconds_per_step, now) or doubt(revision, results, now, age_limit_s)
    if hold is not None:
        return hold
    metrics = {variant.name: variant.metrics.get(results.metric) for variant in results.variants}
    rows = {name: interval.n for name, interval in metrics.items() if interval is not None}
    by_arm = {variant.name: rows.get(variant.name, 0) for variant in revision.variants}
    if min(by_arm.values()) < bandit.rows_per_arm:
        counted = ", ".join(f"{name} {count:,}" for name, count in by_arm.items())
        return Hold("too few rows", f"{bandit.rows_per_arm:,} matured rows are needed in each arm: {counted}")
    posteriors = posteriors_of(revision, results)
    if posteriors is None:
        return Hold("too few rows", f"the results do not say yet how {results.metric} varies, or what the effect is")
    hold = unjudged_guardrail(revision, results)
    if hold is not None:
        return hold
    probabilities = best_probabilities(posteriors, seed=f"{revision.seed}/{revision.epoch}")
    weights = in_hash_steps(with_floor(probabilities, bandit.floor), revision.coverage)
    before = [variant.weight for variant in revision.variants]
    if max(abs(new - old) for new, old in zip(weights, before, strict=True)) < SMALLEST_MOVE:
        return Hold("no change", "the weights would stay as they are")
    names = [variant.name for variant in revision.variants]
    shown = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, probabilities, strict=True))
    reason = f"Thompson sampling: the probability of being best in {results.metric} is {shown}"
    return Move(revision.coverage, dict(zip(names, weights, strict=True)), revision.step, reason)


def posteriors_of(revision: ExperimentRevision, results: Results) -> list[Posterior] | None:
    """What the matured rows say of each variant, in their order; None while an effect is unknown, or nothing varies.

    The mean is the effect against the champion, which epochs are weighted for: means over all rows would take a change
    of the base rate between two allocations for a difference of the variants. The standard error is that of the
    variant's own mean, from the interval of its confidence sequence. A variant whose rows all have one value has no
    interval: its rows count as varying like those of the variant that varies most.
    """
    means = [_gain(revision, results, variant.name) for variant in revision.variants]
    known = {variant.name: variant.metrics[results.metric] for variant in results.variants}
    arms = [known[variant.name] for variant in revision.variants]
    errors = [standard_error(arm, results.alpha, revision.tuning_n) for arm in arms]
    variances = [error**2 * arm.n for arm, error in zip(arms, errors, strict=True) if error is not None]
    if not variances or any(mean is None for mean in means):
        return None
    widest = [sqrt(max(variances) / arm.n) if error is None else error for arm, error in zip(arms, errors, strict=True)]
    return [Posterior(mean or 0.0, error) for mean, error in zip(means, widest, strict=True)]


def _gain(revision: ExperimentRevision, results: Results, variant: str) -> float | None:
    """By how much a variant is better than the champion; None where it is not known."""
    if variant == revision.champion:
        return 0.0
    effect = results.effects.get(variant, {}).get(results.metric)
    if effect is None or effect.estimate is None:
        return None
    return -effect.estimate if effect.lower_is_better else effect.estimate


def standard_error(interval: Interval, alpha: float, tuning_n: int) -> float | None:
    """The standard error behind an interval of the asymptotic confidence sequence; None where it has no ends.

    With the rows n, rho^2 = (-2 ln alpha + ln(1 - 2 ln alpha)) / tuning_n and A = n rho^2 + 1, half the width is
    se sqrt(2 A ln(sqrt(A) / alpha)) / (sqrt(n) rho). Source: Waudby-Smith et al., arXiv 2103.06476.
    """
    if interval.low is None or interval.high is None or interval.n < 1:
        return None
    rho_squared = (-2.0 * log(alpha) + log(1.0 - 2.0 * log(alpha))) / tuning_n
    a = interval.n * rho_squared + 1.0
    errors = sqrt(2.0 * a * (0.5 * log(a) - log(alpha)) / (interval.n * rho_squared))
    return (interval.high - interval.low) / 2.0 / errors


def best_probabilities(posteriors: Sequence[Posterior], *, seed: str, draws: int = DRAWS) -> list[float]:
    """The probability of each variant that it is the best one, by draws from the posteriors.

    The same posteriors and seed always give the same probabilities.
    """
    chance, wins = random.Random(seed), [0] * len(posteriors)  # noqa: S311 - no secret
    arms = range(len(posteriors))
    for _ in range(draws):
        drawn = [chance.gauss(posterior.mean, posterior.standard_error) for posterior in posteriors]
        wins[max(arms, key=drawn.__getitem__)] += 1
    return [count / draws for count in wins]


def with_floor(probabilities: Sequence[float], least: float) -> list[float]:
    """Weights that add up to 1, in the order of the probabilities, and none below `least`, or below an equal share."""
    arms = len(probabilities)
    least = min(least, 1.0 / arms)
    return [least + (1.0 - arms * least) * probability for probability in probabilities]


def in_hash_steps(weights: Sequence[float], coverage: float) -> list[float]:
    """The weights as whole steps of the hash within the coverage, which each variant has one of at least.

    The steps that are left over go to the largest remainders.
    """
    steps = max(round(coverage * STEPS), len(weights))
    exact = [weight * steps for weight in weights]
    counts = [max(1, floor(wanted)) for wanted in exact]
    by_remainder = sorted(range(len(weights)), key=lambda arm: counts[arm] - exact[arm])
    for arm in by_remainder[: max(0, steps - sum(counts))]:
        counts[arm] += 1
    while sum(counts) > steps:
        counts[max(range(len(counts)), key=counts.__getitem__)] -= 1
    return [count / steps for count in counts]
