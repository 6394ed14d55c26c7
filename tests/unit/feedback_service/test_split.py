"""Sample ratio: the check figure, and how often looking raises a false alarm."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from services.feedback_service.domain.split import BLOCKING_P, clustered_split_p, log_split_e_value, split_p
from services.feedback_service.domain.sums.units import BUCKETS

HALF = [0.5, 0.5]


def table(buckets: np.ndarray, challenger: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(buckets[rows], minlength=BUCKETS) for rows in (~challenger, challenger)])


def test_the_check_figure_holds() -> None:
    assert split_p([([5000, 5300], HALF)]) == pytest.approx(0.134894, abs=5e-7)


def test_a_gross_mismatch_does_not_overflow() -> None:
    assert split_p([([1_000_000, 9_000_000], HALF)]) == 0.0
    assert math.isfinite(log_split_e_value([1_000_000, 9_000_000], HALF))


def test_the_e_value_is_the_ratio_of_scipys_likelihoods() -> None:
    counts, shares = np.array([130, 60, 40]), np.array([0.5, 0.3, 0.2])
    alternative = stats.dirichlet_multinomial(100.0 * shares, 230).logpmf(counts)
    null = stats.multinomial(230, shares).logpmf(counts)
    assert log_split_e_value(counts, shares) == pytest.approx(alternative - null)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=4))
def test_shares_need_not_add_up_to_one(counts: list[int]) -> None:
    shares = np.arange(1, len(counts) + 1)
    assert log_split_e_value(counts, shares) == pytest.approx(log_split_e_value(counts, 7 * shares), abs=1e-6)


def test_no_rows_are_no_evidence() -> None:
    assert log_split_e_value([0, 0], HALF) == 0.0
    assert split_p([]) == clustered_split_p([]) == 1.0


def test_evidence_multiplies_over_epochs() -> None:
    epochs = [([5000, 5300], HALF), ([9000, 1200], [0.9, 0.1])]
    both = sum(log_split_e_value(counts, shares) for counts, shares in epochs)
    assert split_p(epochs) == pytest.approx(math.exp(-both))


def test_a_variant_without_a_share_must_have_no_rows() -> None:
    assert split_p([([500, 500, 0], [1, 1, 0])]) == 1.0
    assert split_p([([500, 500, 1], [1, 1, 0])]) == 0.0


@pytest.mark.parametrize(("counts", "shares"), [([1, 2, 3], HALF), ([1, 2], [0.0, 0.0])])
def test_shapes_and_shares_are_checked(counts: list[int], shares: list[float]) -> None:
    with pytest.raises(ValueError, match="variant"):
        log_split_e_value(counts, shares)


def test_a_hundred_looks_raise_few_false_alarms_where_chi_squared_raises_many() -> None:
    rng = np.random.default_rng(30)
    challenger = rng.binomial(200, 0.5, (300, 100)).cumsum(axis=1)
    rows = np.arange(200, 20_001, 200)
    chi_squared = stats.chi2.sf((2 * challenger - rows) ** 2 / rows, 1)
    p = [min(split_p([([n - c, c], HALF)]) for n, c in zip(rows, run, strict=True)) for run in challenger]
    assert np.mean(np.array(p) < 0.05) <= 0.04
    assert (chi_squared < 0.05).any(axis=1).mean() > 0.25


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_busy_units_do_not_break_the_split(share: float) -> None:
    rng = np.random.default_rng(31)
    rows_alarm, units_alarm = [], []
    for _ in range(60):
        challenger, buckets = rng.random(400) < share, rng.integers(0, BUCKETS, 400)
        units = rng.integers(0, 400, 20_000)
        looks = [table(buckets[seen], challenger[seen]) for seen in (units[:n] for n in range(1000, 20_001, 1000))]
        shares = [1 - share, share]
        rows_alarm.append(min(split_p([(look.sum(axis=1), shares)]) for look in looks) < BLOCKING_P)
        units_alarm.append(min(clustered_split_p([(look, shares)]) for look in looks) < 0.05)
    assert np.mean(rows_alarm) > 0.25
    assert np.mean(units_alarm) <= 0.04


def test_a_broken_split_is_found_with_and_without_busy_units() -> None:
    rng = np.random.default_rng(32)
    challenger, buckets = rng.random(10_000) < 0.46, rng.integers(0, BUCKETS, 10_000)
    rows = table(buckets, challenger)
    assert split_p([(rows.sum(axis=1), HALF)]) < BLOCKING_P
    assert clustered_split_p([(rows, HALF)]) < BLOCKING_P
    assert clustered_split_p([(3 * rows, HALF)]) < BLOCKING_P


def test_units_that_return_in_every_epoch_are_not_counted_again() -> None:
    rng = np.random.default_rng(33)
    p = []
    for _ in range(100):
        challenger, buckets = rng.random(2000) < 0.5, rng.integers(0, BUCKETS, 2000)
        p.append(clustered_split_p([(table(buckets, challenger), HALF)] * 10))
    assert np.mean(np.array(p) < 0.05) <= 0.04


def test_three_variants_are_tested_together() -> None:
    rng = np.random.default_rng(34)
    rows = rng.poisson(20, (3, BUCKETS))
    assert clustered_split_p([(rows, [1, 1, 1])]) > BLOCKING_P
    assert clustered_split_p([(rows, [2, 1, 1])]) < BLOCKING_P


def test_a_handful_of_units_says_nothing() -> None:
    rows = np.zeros((2, BUCKETS))
    rows[0, :5] = 1000
    assert clustered_split_p([(rows, HALF)]) == 1.0
