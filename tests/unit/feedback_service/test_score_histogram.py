"""Score histograms: the area under the curve and its spread against the definitions, written out."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from contender.contracts.metrics.auc import AUC
from services.feedback_service.domain.sums.estimates import compare
from services.feedback_service.domain.sums.metric_sums import LabelledRows
from services.feedback_service.domain.sums.score_histogram import BINS, ScoreHistogram
from services.feedback_service.domain.sums.units import BUCKETS

ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.0, 1.0)), max_size=30)


def histogram(rows: list[tuple[int, float]]) -> ScoreHistogram:
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return histogram_of(table[:, 0], table[:, 1])


def histogram_of(outcomes: np.ndarray, scores: np.ndarray, buckets: np.ndarray | None = None) -> ScoreHistogram:
    """The histogram of rows; by default each is of a unit of its own."""
    buckets = np.arange(len(scores)) % BUCKETS if buckets is None else buckets
    labelled = LabelledRows("binary", outcomes, scores, None, buckets.astype(np.uint8))
    keys, counted = ScoreHistogram.additions(AUC, labelled)
    assert set(counted) <= {1.0}
    return ScoreHistogram.read(Counter(buckets.tolist()), Counter(keys.tolist()))


def counts(histogram: ScoreHistogram) -> list[float]:
    return [*histogram.negatives, *histogram.positives]


def scored(seed: int, rows: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    outcomes = (rng.random(rows) < 0.3).astype(float)
    return outcomes, 1 / (1 + np.exp(-rng.normal(strength * outcomes, 1.0)))


@given(ROWS, ROWS, ROWS)
def test_merging_is_associative_and_commutative(
    a: list[tuple[int, float]], b: list[tuple[int, float]], c: list[tuple[int, float]]
) -> None:
    first, second, third = histogram(a), histogram(b), histogram(c)
    assert counts((first + second) + third) == counts(first + (second + third)) == counts(histogram(c + a + b))
    assert counts(first + second) == counts(second + first)
    assert counts(first + ScoreHistogram()) == counts(first)


def test_the_area_is_that_of_scikit_learn_on_binned_scores() -> None:
    outcomes, scores = scored(seed=1, rows=3000, strength=1.0)
    binned = np.minimum(np.floor(scores * BINS), BINS - 1)
    auc = histogram_of(outcomes, scores).area
    assert auc.value == pytest.approx(roc_auc_score(outcomes, binned), abs=1e-12)
    assert auc.value == pytest.approx(roc_auc_score(outcomes, scores), abs=1e-3)
    assert auc.n == 3000


def test_the_standard_error_is_delongs_written_out_over_all_pairs() -> None:
    outcomes, scores = scored(seed=2, rows=400, strength=0.8)
    bins = np.minimum(np.floor(scores * BINS), BINS - 1)
    positives, negatives = bins[outcomes == 1.0], bins[outcomes == 0.0]
    wins = np.heaviside(positives[:, np.newaxis] - negatives, 0.5)
    variance = wins.mean(axis=1).var(ddof=1) / len(positives) + wins.mean(axis=0).var(ddof=1) / len(negatives)
    assert histogram_of(outcomes, scores).area.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_the_standard_error_is_the_spread_over_repetitions() -> None:
    estimates = [histogram_of(*scored(seed=seed, rows=1000, strength=1.0)).area for seed in range(300)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    assert np.mean([estimate.standard_error for estimate in estimates]) == pytest.approx(spread, rel=0.12)


def test_two_areas_compare_like_two_means() -> None:
    epochs = [(histogram_of(*scored(1, 2000, 0.5)).area, histogram_of(*scored(2, 2000, 1.5)).area) for _ in range(2)]
    comparison = compare(epochs)
    assert comparison is not None
    assert comparison.effect.value == pytest.approx(epochs[0][1].value - epochs[0][0].value)
    assert comparison.effect.n == 8000


def test_a_missing_class_leaves_the_area_unknown() -> None:
    auc = histogram([(1, 0.2), (1, 0.9)]).area
    assert math.isnan(auc.value)
    assert not auc.varies


def test_scores_at_the_ends_of_the_scale_fall_into_the_outermost_bins() -> None:
    sums = histogram([(0, 0.0), (1, 1.0), (1, 1.0005)])
    assert (sums.negatives[0], sums.positives[-1]) == (1.0, 2.0)


def alarms(rows_per_unit: int, epochs: int) -> tuple[float, float]:
    """How often 1.96 standard errors are exceeded without an effect: as for independent rows, and as compared."""
    rng = np.random.default_rng(6)
    plain, compared = [], []
    for _ in range(200):
        units = rng.normal(size=600)
        buckets, arms = rng.integers(0, BUCKETS, 600), rng.random(600) < 0.5
        pairs = []
        for _epoch in range(epochs):
            pair = []
            for chosen in (~arms, arms):
                unit = np.repeat(np.flatnonzero(chosen), rows_per_unit)
                outcomes = (units[unit] + rng.normal(size=len(unit)) > 0).astype(float)
                scores = 1 / (1 + np.exp(-(units[unit] ** 2 + 0.3 * rng.normal(size=len(unit)))))
                pair.append(histogram_of(outcomes, scores, buckets[unit]))
            pairs.append((pair[0], pair[1]))
        rows, units_too = compare([(a.area, b.area) for a, b in pairs]), ScoreHistogram.compare(pairs)
        assert rows is not None
        assert units_too is not None
        plain.append(abs(rows.effect.value) > 1.96 * rows.effect.standard_error)
        compared.append(abs(units_too.effect.value) > 1.96 * units_too.effect.standard_error)
    return float(np.mean(plain)), float(np.mean(compared))


@pytest.mark.parametrize(("rows_per_unit", "epochs"), [(10, 1), (1, 6)])
def test_busy_and_returning_units_raise_no_false_alarms(rows_per_unit: int, epochs: int) -> None:
    plain, compared = alarms(rows_per_unit, epochs)
    assert plain > 0.15
    assert compared < 0.08


def test_without_returning_units_the_comparison_is_that_of_independent_rows() -> None:
    _, compared = alarms(1, 1)
    assert 0.01 < compared < 0.08
