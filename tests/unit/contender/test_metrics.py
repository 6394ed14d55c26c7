"""Losses per row: their means are scikit-learn's metrics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from contender.contracts.metrics import METRICS, metric_named, metrics_of
from contender.contracts.tasks import task_named

PROBABILITIES = st.floats(0.0, 1.0) | st.sampled_from([0.0, 1.0, 0.5, 1e-20, 1e-16, 1 - 1e-16])
BINARY_ROWS = st.lists(st.tuples(st.integers(0, 1), PROBABILITIES), min_size=1, max_size=40)


def mean_loss(metric: str, task: str, outcomes: np.ndarray, scores: np.ndarray) -> float:
    return metric_named(metric).values[task](outcomes.astype(float), scores).mean()


def multiclass_rows(classes: int, seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(classes, sharpness), 60)
    return rng.integers(0, classes, 60), scores


@given(BINARY_ROWS)
def test_binary_log_loss_is_that_of_scikit_learn(rows: list[tuple[int, float]]) -> None:
    outcomes, scores = (np.array(column) for column in zip(*rows, strict=True))
    expected = metrics.log_loss(outcomes, scores, labels=[0, 1])
    assert mean_loss("log_loss", "binary", outcomes, scores) == pytest.approx(expected, abs=1e-9)


@given(BINARY_ROWS)
def test_binary_brier_score_is_that_of_scikit_learn(rows: list[tuple[int, float]]) -> None:
    outcomes, scores = (np.array(column) for column in zip(*rows, strict=True))
    expected = metrics.brier_score_loss(outcomes, scores, pos_label=1, labels=[0, 1])
    assert mean_loss("brier", "binary", outcomes, scores) == pytest.approx(expected, abs=1e-9)


@given(BINARY_ROWS)
def test_binary_accuracy_is_that_of_the_likelier_class(rows: list[tuple[int, float]]) -> None:
    outcomes, scores = (np.array(column) for column in zip(*rows, strict=True))
    answers = np.column_stack([1 - scores, scores]).argmax(axis=1)
    assert mean_loss("accuracy", "binary", outcomes, scores) == metrics.accuracy_score(outcomes, answers)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sharpness", [1.0, 0.02])
def test_multiclass_losses_are_those_of_scikit_learn(classes: int, sharpness: float) -> None:
    outcomes, scores = multiclass_rows(classes, seed=classes, sharpness=sharpness)
    labels = list(range(classes))
    expected = {
        "log_loss": metrics.log_loss(outcomes, scores, labels=labels),
        "brier": metrics.brier_score_loss(outcomes, scores, labels=labels),
        "accuracy": metrics.accuracy_score(outcomes, scores.argmax(axis=1)),
    }
    assert {name: mean_loss(name, "multiclass", outcomes, scores) for name in expected} == pytest.approx(
        expected, abs=1e-9
    )


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=40))
def test_regression_losses_are_those_of_scikit_learn(rows: list[tuple[float, float]]) -> None:
    outcomes, scores = (np.array(column) for column in zip(*rows, strict=True))
    assert mean_loss("squared_error", "regression", outcomes, scores) == pytest.approx(
        metrics.mean_squared_error(outcomes, scores)
    )
    assert mean_loss("absolute_error", "regression", outcomes, scores) == pytest.approx(
        metrics.mean_absolute_error(outcomes, scores)
    )


def test_every_task_knows_its_metrics() -> None:
    names = {
        task: [metric.name for metric in metrics_of(task_named(task))]
        for task in ("binary", "multiclass", "regression")
    }
    assert names == {
        "binary": ["log_loss", "brier", "accuracy", "auc"],
        "multiclass": ["log_loss", "brier", "accuracy"],
        "regression": ["absolute_error", "squared_error"],
    }


def test_only_accuracy_and_auc_are_better_when_higher() -> None:
    assert [metric.name for metric in METRICS if not metric.lower_is_better] == ["accuracy", "auc"]
