"""Worlds in which one model is in both arms: looks at the metrics raise few false alarms."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.special import expit

from contender.contracts.metrics.auc import AUC
from services.feedback_service.domain.confidence import confidence_sequence
from services.feedback_service.domain.sums.area import AreaUnderCurve
from services.feedback_service.domain.sums.average_precision import AveragePrecision
from services.feedback_service.domain.sums.estimates import Comparison, overlap_weight
from services.feedback_service.domain.sums.mean import ClusteredSums, compare_clustered
from services.feedback_service.domain.sums.metric_sums import LabelledRows
from services.feedback_service.domain.sums.score_histogram import BINS, FIRST_KEY, UNIT_GROUPS
from services.feedback_service.domain.sums.units import BUCKETS, effective_buckets, largest_share

ROWS, LOOKS = 20_000, 20
MIN_ROWS, MIN_EFFECTIVE = 100, 10.0


def excludes_zero(comparison: Comparison | None) -> bool:
    return comparison is not None and confidence_sequence(comparison.effect, alpha=0.05, tuning_n=5000).excludes_zero


def within(alarms: list[bool], limit: float = 0.05) -> bool:
    """Whether the share of alarms is at most the limit, give or take 1.65 standard errors."""
    return np.mean(alarms) <= limit + 1.65 * (limit * (1.0 - limit) / len(alarms)) ** 0.5


def looks(arms: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of champion and challenger up to each look."""
    for end in np.arange(1, LOOKS + 1) * len(arms) // LOOKS:
        champion, challenger = (np.flatnonzero(arms[:end] == arm) for arm in (0, 1))
        if min(len(champion), len(challenger)) >= MIN_ROWS:
            yield champion, challenger


def units_of_100_rows(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """200 units that differ in base rate and in score."""
    unit, rate, score = rng.integers(0, 200, ROWS), rng.normal(size=200), rng.normal(size=200)
    outcomes = (rng.random(ROWS) < expit(-1.3 + rate[unit] + 0.3 * rng.normal(size=ROWS))).astype(float)
    arms, buckets = rng.integers(0, 2, 200), rng.integers(0, BUCKETS, 200)
    return arms[unit], buckets[unit], outcomes, expit(-1.3 + 0.7 * rate[unit] + 0.7 * score[unit])


def rare_positives(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Independent rows of which 1 % are positive."""
    scores = expit(-5.2 + rng.normal(size=ROWS))
    outcomes = (rng.random(ROWS) < scores).astype(float)
    return rng.integers(0, 2, ROWS), rng.integers(0, BUCKETS, ROWS), outcomes, scores


def small_arm(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Independent rows of which 2 % go to the challenger."""
    scores = expit(-1.3 + rng.normal(size=ROWS))
    outcomes = (rng.random(ROWS) < scores).astype(float)
    return (rng.random(ROWS) < 0.02).astype(int), rng.integers(0, BUCKETS, ROWS), outcomes, scores


@pytest.mark.parametrize("world", [units_of_100_rows, rare_positives, small_arm])
@pytest.mark.parametrize("kind", [AreaUnderCurve, AveragePrecision])
def test_histograms_of_one_model_in_both_arms_raise_few_alarms(world, kind):
    rng, alarms = np.random.default_rng(5), []
    for _ in range(60):
        arms, buckets, outcomes, scores = world(rng)
        keys = keys_of(outcomes, scores, buckets)
        alarms.append(any(excludes_zero(kind.compare([pair_of(kind, keys, rows)])) for rows in looks(arms)))
    assert within(alarms)


def keys_of(outcomes: np.ndarray, scores: np.ndarray, buckets: np.ndarray) -> np.ndarray:
    keys, _ = AreaUnderCurve.additions(AUC, LabelledRows("binary", outcomes, scores, None, buckets))
    return keys - FIRST_KEY


def pair_of(kind, keys, rows):
    shape = (UNIT_GROUPS, 2, BINS)
    return tuple(kind(np.bincount(keys[arm], minlength=np.prod(shape)).reshape(shape).astype(float)) for arm in rows)


def test_a_dominant_unit_needs_the_floor_of_effective_buckets():
    """200 units whose rows are Pareto of exponent .8."""
    rng, alarms, floored = np.random.default_rng(7), [], []
    for _ in range(200):
        weights = (1.0 - rng.random(200)) ** (-1.0 / 0.8)
        unit = rng.choice(200, size=ROWS, p=weights / weights.sum())
        unit_arms, unit_buckets, rate = rng.integers(0, 2, 200), rng.integers(0, BUCKETS, 200), rng.normal(size=200)
        arms, buckets = unit_arms[unit], unit_buckets[unit]
        probability, scores = expit(-1.3 + rate[unit]), expit(-1.3 + 0.5 * rng.normal(size=ROWS))
        losses = -np.log(np.where(rng.random(ROWS) < probability, scores, 1.0 - scores))
        found, counted = False, False
        for rows in looks(arms):
            pair = tuple(ClusteredSums.of(buckets[arm], losses[arm]) for arm in rows)
            if excludes_zero(compare_clustered([pair])):
                found = True
                counted |= min(effective_buckets(arm.rows) for arm in pair) >= MIN_EFFECTIVE
        alarms.append(found)
        floored.append(counted)
    assert not within(alarms)
    assert within(floored, 0.02)


def test_effective_buckets_and_the_largest_share_are_of_the_rows():
    even, uneven = np.full(BUCKETS, 5.0), np.concatenate([[900.0], np.full(BUCKETS - 1, 100 / 199)])
    assert effective_buckets(even) == pytest.approx(BUCKETS)
    assert largest_share(even) == pytest.approx(1 / BUCKETS)
    assert effective_buckets(uneven) == pytest.approx(1.23, abs=0.01)
    assert largest_share(uneven) == pytest.approx(0.9)
    assert (effective_buckets(np.zeros(BUCKETS)), largest_share(np.zeros(BUCKETS))) == (0.0, 0.0)


def test_a_ramp_has_the_variance_of_overlap_weights():
    """Epochs of 10,000 rows, of which 1, 10 and 50 % go to the challenger."""
    rng, ratios = np.random.default_rng(1), []
    sizes = [(9900, 100), (9000, 1000), (5000, 5000)]
    best = 1.0 / sum(overlap_weight(*arms) for arms in sizes)  # values have variance 1
    for _ in range(40):
        epochs = [
            tuple(ClusteredSums.of(rng.integers(0, BUCKETS, n), rng.normal(size=n)) for n in arms) for arms in sizes
        ]
        ratios.append(compare_clustered(epochs).effect.standard_error ** 2 / best)
    assert np.mean(ratios) <= 1.1
