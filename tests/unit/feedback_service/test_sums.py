"""Sums: merging obeys its laws, and the standard errors are right where units repeat and allocations ramp."""

import math
import random
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.feedback_service.domain.sums import (
    BUCKETS,
    MIN_OBSERVATIONS,
    ClusteredSums,
    Comparison,
    Sums,
    compare,
    compare_clustered,
    effect,
    unit_buckets,
)

WHOLE = st.lists(st.integers(-1000, 1000), max_size=20)
VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50)
CLUSTERED = st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(-1000, 1000)), max_size=20)


def clustered(rows: list[tuple[int, int]]) -> ClusteredSums:
    table = np.array(rows, dtype=np.intp).reshape(-1, 2)
    return ClusteredSums.of(table[:, 0], table[:, 1])


def parts(one: ClusteredSums) -> list[float]:
    return [*one.rows, *one.totals]


def z_score(comparison: Comparison | None) -> float:
    assert comparison is not None
    return comparison.effect.value / comparison.effect.standard_error


@given(WHOLE, WHOLE, WHOLE)
def test_merging_is_associative_and_commutative(a: list[int], b: list[int], c: list[int]) -> None:
    one, two, three = Sums.of(a), Sums.of(b), Sums.of(c)
    assert (one + two) + three == one + (two + three) == Sums.of(a + b + c)
    assert one + two == two + one
    assert one + Sums() == one


@given(CLUSTERED, CLUSTERED, CLUSTERED)
def test_merging_buckets_is_associative_and_commutative(
    a: list[tuple[int, int]], b: list[tuple[int, int]], c: list[tuple[int, int]]
) -> None:
    one, two, three = clustered(a), clustered(b), clustered(c)
    assert parts((one + two) + three) == parts(one + (two + three)) == parts(clustered(a + b + c))
    assert parts(one + two) == parts(two + one)
    assert parts(one + ClusteredSums()) == parts(one)


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(values: list[float], shuffler: random.Random) -> None:
    shuffled = shuffler.sample(values, len(values))
    merged = reduce(add, (Sums.of([value]) for value in shuffled))
    assert merged.mean == pytest.approx(Sums.of(values).mean, abs=1e-9)
    assert merged.variance == pytest.approx(Sums.of(values).variance, rel=1e-6, abs=1e-6)


@given(VALUES)
def test_mean_and_variance_are_those_of_numpy(values: list[float]) -> None:
    sums = Sums.of(values)
    assert sums.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert sums.variance == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-5)


def test_the_standard_error_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 500)
    assert Sums.of(values).standard_error == pytest.approx(stats.sem(values))


def test_the_effect_of_arms_of_one_size_is_welchs() -> None:
    rng = np.random.default_rng(2)
    champion, challenger = rng.normal(1.0, 1.0, 800), rng.normal(1.1, 2.0, 800)
    one = effect(Sums.of(champion).estimate, Sums.of(challenger).estimate)
    welch = stats.ttest_ind(challenger, champion, equal_var=False)
    assert one.value / one.standard_error == pytest.approx(welch.statistic)


def test_the_effect_of_a_small_steady_arm_takes_the_common_variance() -> None:
    one = effect(Sums.of_counts(10_000, 100).estimate, Sums.of_counts(100, 0).estimate)
    assert one.standard_error == pytest.approx(math.sqrt(0.01 / 100), rel=0.02)


def test_no_rows_and_one_row_have_no_spread_yet() -> None:
    assert math.isnan(Sums().mean)
    assert Sums().standard_error == Sums.of([0.3]).standard_error == math.inf
    assert clustered([(3, 1), (3, 2)]).estimate.standard_error == math.inf


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.1])
def test_constant_values_have_no_spread_despite_rounding(value: float) -> None:
    assert Sums.of(np.full(1000, value)).variance == 0.0
    buckets = np.arange(1000) * 7 % 198
    assert ClusteredSums.of(buckets, np.full(1000, value)).estimate.standard_error == 0.0


def test_constant_arms_that_differ_are_evidence_but_not_certainty() -> None:
    apart = effect(Sums.of_counts(100, 0).estimate, Sums.of_counts(100, 100).estimate)
    assert apart.standard_error == pytest.approx(math.sqrt(1 / 200))
    assert not effect(Sums.of_counts(100, 0).estimate, Sums.of_counts(100, 0).estimate).varies


def test_an_epoch_counts_once_both_arms_have_enough_rows() -> None:
    few, many = Sums.of_counts(MIN_OBSERVATIONS - 1, 5), Sums.of_counts(1000, 300)
    assert compare([(many.estimate, few.estimate)]) is None
    comparison = compare([(many.estimate, few.estimate), (many.estimate, many.estimate)])
    assert comparison is not None
    assert comparison.effect.n == 2000


def test_one_row_per_bucket_gives_the_plain_standard_error() -> None:
    values = np.random.default_rng(3).normal(size=BUCKETS)
    assert ClusteredSums.of(np.arange(BUCKETS), values).estimate.standard_error == pytest.approx(
        Sums.of(values).standard_error
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
            abs(z_score(compare([(Sums.of(values[~challenger]).estimate, Sums.of(values[challenger]).estimate)])))
            > 1.96
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
            tuple(Sums.of_counts(n, rng.binomial(n, rate)) for n in (round(4000 * (1 - share)), round(4000 * share)))
            for share, rate in ((0.1, 0.10), (0.3, 0.15), (0.5, 0.20))
        ]
        stratified.append(abs(z_score(compare([(one.estimate, two.estimate) for one, two in epochs]))) > 1.96)
        one, two = (reduce(add, arm) for arm in zip(*epochs, strict=True))
        pooled.append(abs(z_score(compare([(one.estimate, two.estimate)]))) > 1.96)
    assert np.mean(pooled) > 0.7
    assert np.mean(stratified) < 0.08


def test_the_arms_of_a_comparison_differ_by_its_effect() -> None:
    epochs = [
        (Sums.of_counts(900, 90), Sums.of_counts(100, 15)),
        (Sums.of_counts(500, 100), Sums.of_counts(500, 130)),
    ]
    comparison = compare([(one.estimate, two.estimate) for one, two in epochs])
    assert comparison is not None
    assert comparison.challenger.value - comparison.champion.value == pytest.approx(comparison.effect.value)
    assert comparison.effect.value == pytest.approx(0.5 * 0.05 + 0.5 * 0.06)


def test_buckets_and_sums_give_one_effect() -> None:
    rng = np.random.default_rng(7)
    buckets, values = rng.integers(0, BUCKETS, 4000), rng.normal(size=4000)
    halves = [slice(0, 2000), slice(2000, 4000)]
    plain = compare([(Sums.of(values[halves[0]]).estimate, Sums.of(values[halves[1]]).estimate)])
    pair = [ClusteredSums.of(buckets[half], values[half]) for half in halves]
    robust = compare_clustered([(pair[0], pair[1])])
    assert plain is not None
    assert robust is not None
    assert robust.effect.value == pytest.approx(plain.effect.value)
    assert robust.effect.standard_error == pytest.approx(plain.effect.standard_error, rel=0.15)
    assert robust.effect.n == plain.effect.n == 4000
