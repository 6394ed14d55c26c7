"""Losses per row: their means are scikit-learn's metrics."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from contender.contracts.metrics import (
    LABELLED,
    LOG_LOSS_CLIP,
    METRICS,
    SERVED,
    ServedRows,
    declared_metrics,
    metric_about,
    metric_named,
    metrics_of,
)
from contender.contracts.tasks import BINARY, REGRESSION, task_named
from contender.contracts.values import FEEDBACK_KINDS, OUTCOME

ABOUT_NO_OUTCOME = [
    "rating",
    "reward",
    "conversion",
    "complaint_rate",
    "shown_rate",
    "override_rate",
    "fallback_rate",
    "degraded_rate",
    "latency",
    "latency_p95",
]

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
    clipped = np.clip(scores, LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    expected = metrics.log_loss(outcomes, clipped, labels=[0, 1])
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
        "log_loss": -np.log(np.maximum(scores[np.arange(60), outcomes], LOG_LOSS_CLIP)).mean(),
        "brier": metrics.brier_score_loss(outcomes, scores, labels=labels),
        "accuracy": metrics.accuracy_score(outcomes, scores.argmax(axis=1)),
    }
    assert {name: mean_loss(name, "multiclass", outcomes, scores) for name in expected} == pytest.approx(
        expected, abs=1e-6
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
        "binary": [
            "log_loss",
            "brier",
            "accuracy",
            "auc",
            "average_precision",
            "calibration_error",
            "value",
            *ABOUT_NO_OUTCOME,
        ],
        "multiclass": ["log_loss", "brier", "accuracy", "value", *ABOUT_NO_OUTCOME],
        "regression": [
            "absolute_error",
            "squared_error",
            "winsorised_absolute_error",
            "winsorised_squared_error",
            "value",
            *ABOUT_NO_OUTCOME,
        ],
    }


def test_metrics_are_read_from_the_rows_that_they_are_about() -> None:
    ledgers = {
        ledger: [metric.name for metric in metrics_of(BINARY, ledger)]
        for ledger in ("served", "rating", "reward", "decided")
    }
    assert ledgers == {
        "served": [
            "conversion",
            "complaint_rate",
            "shown_rate",
            "fallback_rate",
            "degraded_rate",
            "latency",
            "latency_p95",
        ],
        "rating": ["rating"],
        "reward": ["reward"],
        "decided": ["override_rate"],
    }


def test_every_kind_of_report_but_outcomes_has_one_metric() -> None:
    about = {kind: metric_about(kind).name for kind in FEEDBACK_KINDS if kind != OUTCOME}
    assert about == {
        "rating": "rating",
        "reward": "reward",
        "conversion": "conversion",
        "complaint": "complaint_rate",
        "shown": "shown_rate",
        "decided": "override_rate",
    }
    with pytest.raises(KeyError):
        metric_about(OUTCOME)


def test_metrics_known_with_the_answer_read_it() -> None:
    rows = ServedRows(np.array([12.5, np.nan]), np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    values = {
        metric.name: metric.served_values(rows).tolist()
        for metric in metrics_of(BINARY, SERVED)
        if metric.served_values is not None
    }
    assert values == {
        "fallback_rate": [1.0, 1.0],
        "degraded_rate": [0.0, 1.0],
        "latency": pytest.approx([12.5, np.nan], nan_ok=True),
        "latency_p95": pytest.approx([12.5, np.nan], nan_ok=True),
    }


def test_what_people_want_more_of_is_better_when_higher() -> None:
    higher = [metric.name for metric in METRICS if not metric.lower_is_better]
    assert higher == ["accuracy", "auc", "average_precision", "value", "rating", "reward", "conversion", "shown_rate"]


def test_the_calibration_error_alone_does_not_decide() -> None:
    assert [metric.name for metric in METRICS if not metric.may_decide] == ["calibration_error"]


def certain_and_wrong(clip: float) -> list[float]:
    """The log loss of logits of +18 and -18 as 32-bit scores, each wrong."""
    scores = np.array([1.0 / (1.0 + np.exp(-logit)) for logit in (18.0, -18.0)], dtype=np.float32)
    losses = metric_named("log_loss").row_values("binary", np.array([0.0, 1.0]), scores.astype(float), clip)
    return losses.tolist()


def test_certain_and_wrong_costs_the_same_at_both_ends() -> None:
    assert certain_and_wrong(LOG_LOSS_CLIP) == pytest.approx([16.12, 16.12], abs=0.01)
    assert certain_and_wrong(1e-3) == pytest.approx([6.91, 6.91], abs=0.01)


def test_multiclass_log_loss_is_clipped_at_the_same_value() -> None:
    row = metric_named("log_loss").row_values("multiclass", np.array([1.0]), np.array([[1.0, 0.0, 0.0]]), 1e-3)
    assert row.tolist() == pytest.approx([6.91], abs=0.01)


def test_winsorised_errors_count_no_more_than_the_limit() -> None:
    outcomes, scores = np.array([0.0, 3.0, 1e6]), np.array([1.0, 0.0, 0.0])
    values = {
        name: metric_named(name).row_values("regression", outcomes, scores, error_limit=2.5).tolist()
        for name in ("winsorised_absolute_error", "winsorised_squared_error")
    }
    assert values == {"winsorised_absolute_error": [1.0, 2.5, 2.5], "winsorised_squared_error": [1.0, 6.25, 6.25]}
    ranges = [metric_named(name).range_of("regression", clip=1e-7, error_limit=2.5) for name in values]
    assert ranges == [(0.0, 2.5), (0.0, 6.25)]


def test_a_metric_that_needs_a_declaration_is_had_only_with_it() -> None:
    design = SimpleNamespace(value="", error_limit=None)
    assert [metric.name for metric in declared_metrics(REGRESSION, design, LABELLED)] == [
        "absolute_error",
        "squared_error",
    ]
    design.value, design.error_limit = "outcome", 3.0
    assert declared_metrics(REGRESSION, design) == metrics_of(REGRESSION)
