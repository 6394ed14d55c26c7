"""Confidence sequences: the check figures, and how often looking a hundred times raises a false alarm."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from services.feedback_service.domain.confidence import confidence_sequence, half_width, p_value
from services.feedback_service.domain.sums.estimates import Estimate, compare, effect
from tests.unit.feedback_service.plain_sums import share

ALPHA, TUNING_N = 0.05, 5000
RUNS, ROWS, LOOKS = 400, 20_000, 100


def test_two_conversion_rates_give_the_check_figure() -> None:
    difference = effect(share(5000, 500), share(5000, 560))
    look = confidence_sequence(difference, alpha=ALPHA, tuning_n=TUNING_N)
    assert look.low == pytest.approx(-0.006847, abs=5e-7)
    assert look.high == pytest.approx(0.030847, abs=5e-7)
    assert look.p == pytest.approx(0.68773, abs=5e-6)
    assert look.n == 10_000


def test_a_single_mean_has_its_own_interval() -> None:
    look = confidence_sequence(share(5000, 560), alpha=ALPHA, tuning_n=TUNING_N)
    assert look.low < 0.112 < look.high
    assert look.estimate == 0.112
    assert look.p < 1e-12


@given(
    value=st.floats(-1.0, 1.0),
    standard_error=st.floats(1e-4, 1.0),
    n=st.integers(2, 10**7),
    alpha=st.floats(0.001, 0.4),
)
def test_the_interval_excludes_zero_exactly_when_p_is_below_alpha(
    value: float, standard_error: float, n: int, alpha: float
) -> None:
    look = confidence_sequence(Estimate(value, standard_error, n), alpha=alpha, tuning_n=TUNING_N)
    if not math.isclose(look.p, alpha, rel_tol=1e-6):
        assert look.excludes_zero == (look.p < alpha)


@given(standard_error=st.floats(1e-4, 1.0), n=st.integers(2, 10**7))
def test_the_interval_is_wider_than_that_of_a_single_look(standard_error: float, n: int) -> None:
    assert half_width(standard_error, n, alpha=ALPHA, tuning_n=TUNING_N) > norm.isf(ALPHA / 2) * standard_error


def test_the_interval_is_tightest_against_a_single_look_at_the_tuning_point() -> None:
    n = np.arange(100, 100_000, 10)
    relative = half_width(np.ones(n.size), n, alpha=ALPHA, tuning_n=TUNING_N)
    assert n[relative.argmin()] == pytest.approx(TUNING_N, rel=0.05)


@pytest.mark.parametrize("standard_error", [0.0, math.inf, math.nan])
def test_an_unknown_spread_gives_an_unbounded_interval(standard_error: float) -> None:
    look = confidence_sequence(Estimate(0.1, standard_error, 50), alpha=ALPHA, tuning_n=TUNING_N)
    assert (look.low, look.high, look.p) == (-math.inf, math.inf, 1.0)
    assert not look.excludes_zero


def test_p_is_reported_as_the_running_minimum() -> None:
    look = confidence_sequence(Estimate(0.012, 0.006, 10_000), alpha=ALPHA, tuning_n=TUNING_N)
    assert look.after(0.01).p == 0.01
    assert look.after(1.0) == look


@pytest.mark.parametrize(("alpha", "tuning_n"), [(0.0, 5000), (1.0, 5000), (0.05, 0)])
def test_impossible_settings_are_refused(alpha: float, tuning_n: int) -> None:
    with pytest.raises(ValueError, match="must"):
        confidence_sequence(Estimate(0.1, 0.1, 100), alpha=alpha, tuning_n=tuning_n)


def test_a_hundred_looks_at_equal_arms_raise_few_false_alarms_where_a_z_test_raises_many() -> None:
    rng = np.random.default_rng(20)
    step = ROWS // LOOKS
    n = np.arange(step, ROWS + 1, step) / 2
    means = [rng.binomial(step // 2, 0.1, (RUNS, LOOKS)).cumsum(axis=1) / n for _ in range(2)]
    difference = means[1] - means[0]
    standard_error = np.sqrt(sum(mean * (1 - mean) for mean in means) / n)
    p = p_value(difference, standard_error, 2 * n, alpha=ALPHA, tuning_n=TUNING_N)
    peeked = 2 * norm.sf(np.abs(difference) / standard_error)
    assert (p < ALPHA).any(axis=1).mean() <= 0.04
    assert (peeked < ALPHA).any(axis=1).mean() > 0.25


def test_a_small_arm_with_rare_events_raises_few_false_alarms() -> None:
    rng = np.random.default_rng(21)
    step, alarms = ROWS // LOOKS, 0
    for _ in range(150):
        challenger_rows = rng.binomial(step, 0.1, LOOKS)
        arms = [step - challenger_rows, challenger_rows]
        looks = zip(*(np.stack([rows, rng.binomial(rows, 0.01)]).cumsum(axis=1).T for rows in arms), strict=True)
        alarms += any(
            confidence_sequence(comparison.effect, alpha=ALPHA, tuning_n=TUNING_N).excludes_zero
            for champion, challenger in looks
            if challenger[0] >= 100 and (comparison := compare([(share(*champion), share(*challenger))]))
        )
    assert alarms / 150 <= 0.04


def test_a_real_difference_is_found() -> None:
    look = confidence_sequence(
        effect(share(20_000, 2000), share(20_000, 2400)),
        alpha=ALPHA,
        tuning_n=TUNING_N,
    )
    assert look.excludes_zero
