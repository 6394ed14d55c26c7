"""Sums: merging obeys its laws, and the standard errors are right where units repeat and allocations ramp."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.feedback_service.domain.sums.estimates import MIN_OBSERVATIONS, Comparison, compare, effect
from services.feedback_service.domain.sums.mean import ClusteredSums, compare_clustered
from services.feedback_service.domain.sums.units import BUCKETS, unit_buckets
from tests.unit.feedback_service.plain_sums import estimate_of, share

CLUSTERED = st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(-1000, 1000)), max_size=20)


def clustered(rows: list[tuple[int, int]]) -> ClusteredSums:
    table = np.array(rows, dtype=np.intp).reshape(-1, 2)
    return ClusteredSums.of(table[:, 0], table[:, 1])


def parts(sums: ClusteredSums) -> list[float]:
    return [*sums.rows, *sums.totals]


def z_score(comparison: Comparison | None) -> float:
    assert comparison is not None
    return comparison.effect.value / comparison.effect.standard_error


@given(CLUSTERED, CLUSTERED, CLUSTERED)
def test_merging_buckets_is_associative_and_commutative(
    a: list[tuple[int, int]], b: list[tuple[int, int]], c: list[tuple[int, int]]
) -> None:
    first, second, third = clustered(a), clustered(b), clustered(c)
    assert parts((first + second) + third) == parts(first + (second + third)) == parts(clustered(a + b + c))
    assert parts(first + second) == parts(second + first)
    assert parts(first + ClusteredSums()) == parts(first)


def test_the_effect_of_arms_of_one_size_is_welchs() -> None:
    rng = np.random.default_rng(2)
    champion, challenger = rng.normal(1.0, 1.0, 800), rng.normal(1.1, 2.0, 800)
    difference = effect(estimate_of(champion), estimate_of(challenger))
    welch = stats.ttest_ind(challenger, champion, equal_var=False)
    assert difference.value / difference.standard_error == pytest.approx(welch.statistic)


def test_the_effect_of_a_small_steady_arm_takes_the_common_variance() -> None:
    difference = effect(share(10_000, 100), share(100, 0))
    assert difference.standard_error == pytest.approx(math.sqrt(0.01 / 100), rel=0.02)


def test_no_rows_and_one_row_have_no_spread_yet() -> None:
    assert math.isnan(ClusteredSums().mean)
    assert ClusteredSums().estimate.standard_error == clustered([(3, 1)]).estimate.standard_error == math.inf
    assert clustered([(3, 1), (3, 2)]).estimate.standard_error == math.inf


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1])
def test_constant_values_have_no_spread_despite_rounding(value: float) -> None:
    buckets = np.arange(1000) * 7 % 198
    assert ClusteredSums.of(buckets, np.full(1000, value)).estimate.standard_error == 0.0


def test_constant_arms_that_differ_are_evidence_but_not_certainty() -> None:
    apart = effect(share(100, 0), share(100, 100))
    assert apart.standard_error == pytest.approx(math.sqrt(1 / 200))
    assert not effect(share(100, 0), share(100, 0)).varies


def test_an_epoch_counts_once_both_arms_have_enough_rows() -> None:
    few, many = share(MIN_OBSERVATIONS - 1, 5), share(1000, 300)
    assert compare([(many, few)]) is None
    comparison = compare([(many, few), (many, many)])
    assert comparison is not None
    assert comparison.effect.n == 2000


def test_one_row_per_bucket_gives_the_plain_standard_error() -> None:
    values = np.random.default_rng(3).normal(size=BUCKETS)
    assert ClusteredSums.of(np.arange(BUCKETS), values).estimate.standard_error == pytest.approx(
        estimate_of(values).standard_error
    )


def test_buckets_are_stable_and_even() -> None:
    buckets = unit_buckets(f"u-{number}" for number in range(40_000))
    assert list(unit_buckets(["u-0", "u-1", "ü"])) == [*buckets[:2], *unit_buckets(["ü"])]
    assert stats.chisquare(np.bincount(buckets, minlength=BUCKETS)).pvalue > 0.001


def test_units_with_many_rows_need_the_buckets() -> None:
    """1,500 units of about 10 rows, each unit with a mean of its own; no effect."""
    rng = np.random.default_rng(4)
    plain, robust = [], []
    for _ in range(300):
        sizes = rng.geometric(0.1, 1500)
        unit_means, arms, buckets = rng.normal(size=1500), rng.random(1500) < 0.5, rng.integers(0, BUCKETS, 1500)
        values = np.repeat(unit_means, sizes) + rng.normal(size=sizes.sum())
        challenger, bucket = np.repeat(arms, sizes), np.repeat(buckets, sizes)
        pair = [ClusteredSums.of(bucket[rows], values[rows]) for rows in (~challenger, challenger)]
        robust.append(abs(z_score(compare_clustered([(pair[0], pair[1])]))) > 1.96)
        plain.append(
            abs(z_score(compare([(estimate_of(values[~challenger]), estimate_of(values[challenger]))]))) > 1.96
        )
    assert np.mean(plain) > 0.25
    assert np.mean(robust) < 0.09


def test_units_that_return_in_later_epochs_are_still_one_observation() -> None:
    rng = np.random.default_rng(5)
    false_alarms = []
    for _ in range(300):
        unit_means, arms, buckets = rng.normal(size=1000), rng.random(1000) < 0.5, rng.integers(0, BUCKETS, 1000)
        epochs = []
        for _epoch in range(4):
            values = unit_means + 0.3 * rng.normal(size=1000)
            pair = [ClusteredSums.of(buckets[rows], values[rows]) for rows in (~arms, arms)]
            epochs.append((pair[0], pair[1]))
        false_alarms.append(abs(z_score(compare_clustered(epochs))) > 1.96)
    assert np.mean(false_alarms) < 0.09


def test_a_ramp_over_a_drifting_base_rate_needs_the_epochs() -> None:
    """The challenger's share grows from 10 % to 50 % while the base rate grows from 10 % to 20 %; no effect."""
    rng = np.random.default_rng(6)
    pooled, stratified = [], []
    for _ in range(400):
        epochs = [
            tuple((n, rng.binomial(n, rate)) for n in (round(4000 * (1 - part)), round(4000 * part)))
            for part, rate in ((0.1, 0.10), (0.3, 0.15), (0.5, 0.20))
        ]
        stratified.append(abs(z_score(compare([(share(*first), share(*second)) for first, second in epochs]))) > 1.96)
        first, second = np.array(epochs).sum(axis=0)
        pooled.append(abs(z_score(compare([(share(*first), share(*second))]))) > 1.96)
    assert np.mean(pooled) > 0.7
    assert np.mean(stratified) < 0.08


def test_the_arms_of_a_comparison_differ_by_its_effect() -> None:
    epochs = [
        (share(900, 90), share(100, 15)),
        (share(500, 100), share(500, 130)),
    ]
    comparison = compare(epochs)
    assert comparison is not None
    assert comparison.challenger.value - comparison.champion.value == pytest.approx(comparison.effect.value)
    assert comparison.effect.value == pytest.approx((90 * 0.05 + 250 * 0.06) / (90 + 250))  # n p (1 - p)


def test_buckets_and_sums_give_one_effect() -> None:
    rng = np.random.default_rng(7)
    buckets, values = rng.integers(0, BUCKETS, 4000), rng.normal(size=4000)
    halves = [slice(0, 2000), slice(2000, 4000)]
    plain = compare([(estimate_of(values[halves[0]]), estimate_of(values[halves[1]]))])
    pair = [ClusteredSums.of(buckets[half], values[half]) for half in halves]
    robust = compare_clustered([(pair[0], pair[1])])
    assert plain is not None
    assert robust is not None
    assert robust.effect.value == pytest.approx(plain.effect.value)
    assert robust.effect.standard_error == pytest.approx(plain.effect.standard_error, rel=0.15)
    assert robust.effect.n == plain.effect.n == 4000
