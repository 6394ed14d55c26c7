"""Score histograms: the area under the curve and its spread against the definitions, written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from services.feedback_service.domain.histograms import BINS, ScoreHistogram
from services.feedback_service.domain.sums import compare

ROWS = st.lists(st.tuples(st.integers(0, 1), st.floats(0.0, 1.0)), max_size=30)


def histogram(rows: list[tuple[int, float]]) -> ScoreHistogram:
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return ScoreHistogram.of(table[:, 0], table[:, 1])


def counts(one: ScoreHistogram) -> list[float]:
    return [*one.negatives, *one.positives]


def scored(seed: int, rows: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    outcomes = (rng.random(rows) < 0.3).astype(float)
    return outcomes, 1 / (1 + np.exp(-rng.normal(strength * outcomes, 1.0)))


@given(ROWS, ROWS, ROWS)
def test_merging_is_associative_and_commutative(
    a: list[tuple[int, float]], b: list[tuple[int, float]], c: list[tuple[int, float]]
) -> None:
    one, two, three = histogram(a), histogram(b), histogram(c)
    assert counts((one + two) + three) == counts(one + (two + three)) == counts(histogram(c + a + b))
    assert counts(one + two) == counts(two + one)
    assert counts(one + ScoreHistogram()) == counts(one)


def test_the_area_is_that_of_scikit_learn_on_binned_scores() -> None:
    outcomes, scores = scored(seed=1, rows=3000, strength=1.0)
    binned = np.minimum(np.floor(scores * BINS), BINS - 1)
    auc = ScoreHistogram.of(outcomes, scores).auc
    assert auc.value == pytest.approx(roc_auc_score(outcomes, binned), abs=1e-12)
    assert auc.value == pytest.approx(roc_auc_score(outcomes, scores), abs=1e-3)
    assert auc.n == 3000


def test_the_standard_error_is_delongs_written_out_over_all_pairs() -> None:
    outcomes, scores = scored(seed=2, rows=400, strength=0.8)
    bins = np.minimum(np.floor(scores * BINS), BINS - 1)
    positives, negatives = bins[outcomes == 1.0], bins[outcomes == 0.0]
    wins = np.heaviside(positives[:, np.newaxis] - negatives, 0.5)
    variance = wins.mean(axis=1).var(ddof=1) / len(positives) + wins.mean(axis=0).var(ddof=1) / len(negatives)
    assert ScoreHistogram.of(outcomes, scores).auc.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_the_standard_error_is_the_spread_over_repetitions() -> None:
    estimates = [ScoreHistogram.of(*scored(seed=seed, rows=1000, strength=1.0)).auc for seed in range(300)]
    spread = np.std([one.value for one in estimates], ddof=1)
    assert np.mean([one.standard_error for one in estimates]) == pytest.approx(spread, rel=0.12)


def test_two_areas_compare_like_two_means() -> None:
    epochs = [
        (ScoreHistogram.of(*scored(1, 2000, 0.5)).auc, ScoreHistogram.of(*scored(2, 2000, 1.5)).auc) for _ in range(2)
    ]
    comparison = compare(epochs)
    assert comparison is not None
    assert comparison.effect.value == pytest.approx(epochs[0][1].value - epochs[0][0].value)
    assert comparison.effect.n == 8000


def test_a_missing_class_leaves_the_area_unknown() -> None:
    auc = histogram([(1, 0.2), (1, 0.9)]).auc
    assert math.isnan(auc.value)
    assert not auc.varies


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        histogram([(1, score)])
