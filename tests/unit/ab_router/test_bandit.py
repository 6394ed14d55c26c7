"""Thompson sampling: how weights follow results."""

from itertools import pairwise
from math import isclose

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contender.contracts.experiments import Bandit, Guardrail, VariantAllocation
from contender.contracts.feedback_service import Interval, Results, VariantResult, Verdict
from services.ab_router.domain.bandit import (
    Posterior,
    best_probabilities,
    in_hash_steps,
    next_weights,
    posteriors_of,
    standard_error,
    with_floor,
)
from services.ab_router.domain.holds import Hold, Move
from services.feedback_service.domain.confidence import half_width
from tests.experiment_revisions import revision
from tests.unit.ab_router.ramp_results import AGE_LIMIT_S, NOW, effect, results, variant

BANDIT = Bandit(floor=0.05, rows_per_arm=100, seconds_per_step=3_600.0)
shares = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=10).filter(lambda drawn: sum(drawn) > 0.0)
floors = st.floats(0.01, 0.5)


def moved(known: Results, now: float = NOW, **changes: object) -> Move | Hold:
    fields = {"epoch": 3, "changed_at": 1_000.0, "started_at": 100.0, "bandit": BANDIT, **changes}
    return next_weights(BANDIT, revision(**fields), known, now, AGE_LIMIT_S)


def better(estimate: float, *, lower_is_better: bool = True) -> Results:
    return results(effects={"b": {"log_loss": effect(estimate, lower_is_better=lower_is_better)}})


@pytest.mark.parametrize(("estimate", "lower_is_better"), [(-1.0, True), (1.0, False)])
def test_a_clearly_better_arm_gets_all_but_the_floor(estimate, lower_is_better):
    move = moved(better(estimate, lower_is_better=lower_is_better))
    assert isinstance(move, Move)
    assert (move.coverage, move.weights, move.step) == (1.0, {"a": 0.05, "b": 0.95}, None)
    assert move.reason == "Thompson sampling: the probability of being best in log_loss is a 0.0%, b 100.0%"


def test_a_clearly_worse_arm_keeps_the_floor():
    move = moved(better(1.0))
    assert isinstance(move, Move)
    assert move.weights == {"a": 0.95, "b": 0.05}


def test_equal_arms_stay_equal():
    move = moved(better(0.0))
    assert isinstance(move, Hold)
    assert move.cause == "no change"


def test_equal_arms_become_equal_again():
    variants = [VariantAllocation("a", "v1", 0.9), VariantAllocation("b", "v2", 0.1)]
    move = moved(better(0.0), variants=variants)
    assert isinstance(move, Move)
    assert move.weights == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.02)


def test_the_same_results_give_the_same_weights():
    assert moved(better(0.01)) == moved(better(0.01))


@pytest.mark.parametrize(
    ("known", "changes", "cause"),
    [
        (results(variants=[variant("a", 0, n=10**6), variant("b", 0, n=99)]), {}, "too few rows"),
        (results(variants=[variant("a", 0, n=99), variant("b", 0, n=10**6)]), {}, "too few rows"),
        (results(variants=[variant("a", 0)]), {}, "too few rows"),
        (results(effects={}), {}, "too few rows"),
        (results(effects={"b": {"log_loss": effect(None)}}), {}, "too few rows"),
        (results(epoch=2), {}, "old results"),
        (results(updated_at=NOW - 100.0), {}, "old results"),
        (results(verdicts=[Verdict("withheld: split", "", "b")]), {}, "verdict"),
        (results(verdicts=[Verdict("stopped: guardrail", "", "b")]), {}, "guardrail"),
        (better(-1.0), {"guardrails": [Guardrail("brier")]}, "guardrail"),
        (better(-1.0), {"changed_at": NOW - 3_599.0}, "too early"),
    ],
)
def test_weights_are_held(known: Results, changes: dict[str, object], cause: str):
    move = moved(known, **changes)
    assert isinstance(move, Hold), move
    assert move.cause == cause


def test_rows_whose_label_is_still_to_come_do_not_count():
    waiting = [variant("a", 0, n=10**6), variant("b", 0, n=99)]
    assert waiting[1].metrics["log_loss"].n == 99
    assert isinstance(moved(results(variants=waiting)), Hold)


def constant(name: str, n: int) -> VariantResult:
    """A variant whose rows all have one value."""
    return msgspec.structs.replace(variant(name, 0), metrics={"log_loss": Interval(0.5, None, None, n)})


def test_an_arm_whose_rows_do_not_vary_counts_as_varying_like_the_other():
    known = results(variants=[variant("a", 0, n=400), constant("b", 100)])
    champion, challenger = posteriors_of(revision(), known) or []
    assert challenger.standard_error == pytest.approx(2.0 * champion.standard_error)


def test_weights_are_held_while_no_arm_varies():
    move = moved(results(variants=[constant("a", 5_000), constant("b", 5_000)]))
    assert isinstance(move, Hold)
    assert move.cause == "too few rows"


@given(st.integers(100, 10**7), st.floats(1e-4, 10.0), st.floats(0.001, 0.2), st.integers(100, 10**6))
def test_the_standard_error_is_the_one_behind_the_interval(n: int, error: float, alpha: float, tuning_n: int):
    half = float(half_width(error, n, alpha=alpha, tuning_n=tuning_n))
    found = standard_error(Interval(3.0, 3.0 - half, 3.0 + half, n), alpha, tuning_n)
    assert found == pytest.approx(error, rel=1e-6)


def test_the_mean_of_a_posterior_is_the_effect_within_epochs_and_not_that_of_the_pooled_means():
    known = results(
        variants=[variant("a", 0, mean=0.9), variant("b", 0, mean=0.1)], effects={"b": {"log_loss": effect(0.2)}}
    )
    champion, challenger = posteriors_of(revision(), known) or []
    assert (champion.mean, challenger.mean) == (0.0, -0.2)


@given(shares, floors)
def test_with_a_floor_weights_add_up_to_one_in_the_same_order(drawn: list[float], least: float):
    probabilities = [share / sum(drawn) for share in drawn]
    weights = with_floor(probabilities, least)
    assert isclose(sum(weights), 1.0)
    assert min(weights) >= min(least, 1.0 / len(drawn)) - 1e-12
    ranked = sorted(range(len(drawn)), key=probabilities.__getitem__)
    assert all(weights[low] <= weights[high] + 1e-12 for low, high in pairwise(ranked))


@given(shares, floors, st.floats(0.01, 1.0))
def test_in_hash_steps_weights_are_whole_steps_and_close_to_what_was_wanted(
    drawn: list[float], least: float, coverage: float
):
    wanted = with_floor([share / sum(drawn) for share in drawn], least)
    weights = in_hash_steps(wanted, coverage)
    steps = max(round(coverage * 10_000), len(drawn))
    counts = [weight * steps for weight in weights]
    assert isclose(sum(weights), 1.0)
    assert all(isclose(count, round(count), abs_tol=1e-6) and round(count) >= 1 for count in counts)
    assert all(abs(weight - share) <= 2.0 * len(drawn) / steps for weight, share in zip(weights, wanted, strict=True))


@given(
    st.lists(st.tuples(st.floats(-10.0, 10.0), st.floats(0.0, 10.0)), min_size=2, max_size=5),
    st.text(max_size=10),
)
def test_probabilities_add_up_to_one_and_are_those_of_the_seed(drawn: list[tuple[float, float]], seed: str):
    posteriors = [Posterior(*each) for each in drawn]
    probabilities = best_probabilities(posteriors, seed=seed, draws=50)
    assert isclose(sum(probabilities), 1.0)
    assert min(probabilities) >= 0.0
    assert probabilities == best_probabilities(posteriors, seed=seed, draws=50)


def test_the_probability_of_being_best_is_that_of_the_normal_distribution():
    """P(N(0.1, 0.1^2) > N(0, 0.1^2)) = Phi(0.1 / sqrt(0.02)) = 0.7602."""
    probabilities = best_probabilities([Posterior(0.0, 0.1), Posterior(0.1, 0.1)], seed="s", draws=100_000)
    assert probabilities[1] == pytest.approx(0.7602, abs=0.005)
