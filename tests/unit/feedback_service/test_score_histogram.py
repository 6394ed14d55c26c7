"""Score histograms: the metrics that they give against scikit-learn's, and when they give none."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

from contender.contracts.metrics.auc import AUC
from services.feedback_service.domain.sums.area import AreaUnderCurve
from services.feedback_service.domain.sums.average_precision import AveragePrecision
from services.feedback_service.domain.sums.calibration import RELIABILITY_BINS, CalibrationError
from services.feedback_service.domain.sums.metric_sums import LabelledRows
from services.feedback_service.domain.sums.score_histogram import MIN_OF_CLASS, ScoreHistogram
from services.feedback_service.domain.sums.units import BUCKETS

ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.0, 1.0)), max_size=30)
KINDS = (AreaUnderCurve, AveragePrecision, CalibrationError)


def totals_of(outcomes: np.ndarray, scores: np.ndarray, buckets: np.ndarray | None = None) -> Counter[int]:
    """What rows add by key; by default each is of a unit of its own."""
    buckets = np.arange(len(scores)) % BUCKETS if buckets is None else buckets
    labelled = LabelledRows("binary", outcomes, scores, None, buckets.astype(np.uint8))
    keys, ones = ScoreHistogram.additions(AUC, labelled)
    assert set(ones) <= {1.0}
    return Counter(keys.tolist())


def histogram_of(outcomes, scores, buckets=None, kind=AreaUnderCurve):
    return kind.read({}, totals_of(outcomes, scores, buckets))


def histogram(rows: list[tuple[int, float]]) -> AreaUnderCurve:
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return histogram_of(table[:, 0], table[:, 1])


def counts(sums: ScoreHistogram) -> list[float]:
    return sums.counts.ravel().tolist()


def scored(seed: int, rows: int, strength: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    outcomes = (rng.random(rows) < 0.3).astype(float)
    return outcomes, expit(rng.normal(strength * outcomes, 1.0))


def binned(scores: np.ndarray) -> np.ndarray:
    """The bins as the specification has them: 1,000 equal ones of the logit from -16 to 16."""
    return np.clip(np.floor((logit(scores) + 16.0) / 32.0 * 1000), 0, 999)


@given(ROWS, ROWS, ROWS)
def test_merging_is_associative_and_commutative(
    a: list[tuple[int, float]], b: list[tuple[int, float]], c: list[tuple[int, float]]
) -> None:
    first, second, third = histogram(a), histogram(b), histogram(c)
    assert counts(first + second) == counts(second + first)
    assert counts((first + second) + third) == counts(first + (second + third))
    assert counts(first + AreaUnderCurve()) == counts(first)


@pytest.mark.parametrize(
    ("kind", "oracle", "off"),
    [(AreaUnderCurve, roc_auc_score, 1e-3), (AveragePrecision, average_precision_score, 5e-3)],
)
def test_the_metric_is_that_of_scikit_learn_on_binned_scores(kind, oracle, off):
    outcomes, scores = scored(seed=1, rows=3000)
    estimate = histogram_of(outcomes, scores, kind=kind).estimate
    assert estimate.value == pytest.approx(oracle(outcomes, binned(scores)), abs=1e-12)
    assert estimate.value == pytest.approx(oracle(outcomes, scores), abs=off)
    assert estimate.n == 3000


@pytest.mark.parametrize("base", [-3.0, -6.5, -9.0, -10.0])
def test_the_bins_tell_small_scores_apart(base):
    rng = np.random.default_rng(3)
    scores = expit(base + 1.2 * rng.normal(size=1_000_000))
    outcomes = (rng.random(len(scores)) < scores).astype(float)
    estimate = histogram_of(outcomes, scores).estimate
    assert abs(estimate.value - roc_auc_score(outcomes, scores)) < 0.2 * estimate.standard_error


@pytest.mark.parametrize("kind", KINDS)
def test_the_standard_error_is_the_spread_over_repetitions(kind):
    estimates = [histogram_of(*scored(seed=seed, rows=1000), kind=kind).estimate for seed in range(300)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    assert np.mean([estimate.standard_error for estimate in estimates]) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_figure_below_fifty_rows_of_each_class(kind):
    def arm(positives: int) -> ScoreHistogram:
        return histogram_of(np.arange(1000) < positives, np.linspace(0.1, 0.9, 1000), kind=kind)

    few, enough = arm(MIN_OF_CLASS - 1), arm(MIN_OF_CLASS)
    assert math.isnan(few.estimate.value)
    assert not few.estimate.varies
    assert enough.estimate.varies
    assert kind.compare([(few, enough)]) is None
    assert kind.compare([(enough, few)]) is None
    assert kind.compare([(enough, few), (enough, enough)]).effect.n == 2000
    assert math.isnan(arm(1000 - MIN_OF_CLASS + 1).estimate.value)


def test_there_is_no_figure_from_few_groups_of_units():
    outcomes, scores = scored(seed=4, rows=1000)
    assert math.isnan(histogram_of(outcomes, scores, np.arange(1000) % 9).estimate.value)
    assert histogram_of(outcomes, scores, np.arange(1000) % 10).estimate.varies


def test_a_class_that_is_in_one_group_alone_gives_no_figure():
    outcomes, scores = scored(seed=4, rows=1000)
    buckets = np.where(outcomes == 1.0, 3, np.arange(1000) % BUCKETS)
    assert math.isnan(histogram_of(outcomes, scores, buckets).estimate.value)
    sums = histogram_of(outcomes, scores, buckets)
    assert AreaUnderCurve.compare([(sums, sums)]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_are_combined_with_overlap_weights(kind):
    sizes = ((1800, 400), (1000, 1000))
    epochs = [
        tuple(histogram_of(*scored(10 * epoch + arm, rows, 0.5 + arm), kind=kind) for arm, rows in enumerate(arms))
        for epoch, arms in enumerate(sizes)
    ]
    comparison = kind.compare(epochs)
    weights = np.array([champion * other / (champion + other) for champion, other in sizes])
    effects = [challenger.value - champion.value for champion, challenger in epochs]
    assert comparison.effect.value == pytest.approx(weights @ effects / weights.sum())
    assert comparison.challenger.value - comparison.champion.value == pytest.approx(comparison.effect.value)
    assert comparison.effect.n == 4200


def test_arms_without_spread_that_differ_are_evidence_but_not_certainty():
    outcomes = np.arange(1000) % 3 == 0
    right, wrong = histogram_of(outcomes, outcomes * 0.8 + 0.1), histogram_of(outcomes, 0.9 - outcomes * 0.8)
    assert AreaUnderCurve.compare([(wrong, right)]).effect.standard_error > 0.2
    assert not AreaUnderCurve.compare([(right, right)]).effect.varies


def test_scores_at_the_ends_of_the_scale_fall_into_the_outermost_bins():
    sums = histogram([(0, 0.0), (1, 1.0), (1, 1.0005), (0, 1e-300)]).counts.sum(axis=0)
    assert (sums[0, 0], sums[1, -1]) == (2.0, 2.0)


def test_the_reliability_table_has_the_mean_score_and_the_share_of_positives():
    outcomes, scores = scored(seed=6, rows=5000)
    sums = histogram_of(outcomes, scores, kind=CalibrationError)
    table = sums.reliability()
    assert len(table) == RELIABILITY_BINS
    order = np.argsort(scores)
    for row, expected in zip(table, np.array_split(order, RELIABILITY_BINS), strict=True):
        assert row.n == pytest.approx(500, abs=40)
        assert row.mean_score == pytest.approx(scores[expected].mean(), rel=0.03)
        assert row.positive_share == pytest.approx(outcomes[expected].mean(), abs=0.03)
    error = sum(row.n * abs(row.mean_score - row.positive_share) for row in table) / 5000
    assert sums.estimate.value == pytest.approx(error)


def test_calibrated_scores_have_a_small_calibration_error():
    rng = np.random.default_rng(7)
    scores = expit(rng.normal(-1.0, 1.0, 20_000))
    outcomes = (rng.random(20_000) < scores).astype(float)
    assert histogram_of(outcomes, scores, kind=CalibrationError).estimate.value < 0.015
    assert histogram_of(outcomes, scores / 2, kind=CalibrationError).estimate.value > 0.12


def test_without_rows_there_is_no_reliability_table():
    assert CalibrationError().reliability() == []


def test_scores_that_are_all_alike_are_in_one_row_of_the_table():
    [row] = histogram_of(np.arange(100) < 30, np.full(100, 0.3), kind=CalibrationError).reliability()
    assert (row.n, row.positive_share) == (100, 0.3)
    assert row.mean_score == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_days_give_the_effect_of_all_their_rows(kind):
    arms = [{day: totals_of(*scored(2 * day + arm, 800, 0.6 + arm)) for day in range(6)} for arm in (0, 1)]
    days = tuple({day: kind.day_totals({}, totals) for day, totals in arm.items()} for arm in arms)
    effect = kind.day_effect([days])
    champion, challenger = (kind.read({}, sum(arm.values(), Counter())) for arm in arms)
    comparison = kind.compare([(champion, challenger)])
    assert effect.days == tuple(range(6))
    assert effect.value == pytest.approx(comparison.effect.value, abs=6e-3)
    assert effect.influence.sum() == pytest.approx(0.0, abs=1e-9)
    spread = math.sqrt(np.square(effect.influence).sum() * 6 / 5)
    assert 0.3 < spread / comparison.effect.standard_error < 3.0


def test_days_with_few_positives_give_no_effect():
    day = AreaUnderCurve.day_totals({}, totals_of(np.arange(100) < 20, np.linspace(0.1, 0.9, 100)))
    assert AreaUnderCurve.day_effect([({1: day}, {1: day})]) is None
    assert AreaUnderCurve.day_effect([({}, {})]) is None
