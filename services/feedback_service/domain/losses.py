"""Losses per row: how far each prediction is from its outcome. Their means are scikit-learn's metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["binary", "multiclass", "regression"]
Floats = NDArray[np.float64]
LossFunction = Callable[[Floats, Floats], Floats]

_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Loss:
    """A metric that is a mean over rows.

    A function takes outcomes, shape (rows,), and scores, and gives one value per row, shape (rows,). For a binary task
    outcomes are 0 or 1 and scores, shape (rows,), the probability of 1. For a multiclass task outcomes are class
    numbers and scores, shape (rows, classes), probabilities. For a regression both are values, shape (rows,).
    `of_labels` takes outcomes and the classes that were served, both class numbers of shape (rows,), where the metric
    is about the model's own decision and not about its scores.
    """

    name: str
    functions: Mapping[Task, LossFunction]
    lower_is_better: bool = True
    of_labels: LossFunction | None = None


def binary_log_loss(outcomes: Floats, scores: Floats) -> Floats:
    """Log loss of a probability. Clipped to [eps, 1 - eps] of float64, as `sklearn.metrics.log_loss` does."""
    return _surprise(np.where(outcomes == 1.0, scores, 1.0 - scores))


def multiclass_log_loss(outcomes: Floats, scores: Floats) -> Floats:
    """Log loss of the probability given to the true class, clipped as in `binary_log_loss`."""
    return _surprise(scores[np.arange(len(outcomes)), outcomes.astype(np.intp)])


def squared_error(outcomes: Floats, scores: Floats) -> Floats:
    """The square of the difference; for a probability of two classes the Brier score."""
    error: Floats = np.square(outcomes - scores)
    return error


def multiclass_brier(outcomes: Floats, scores: Floats) -> Floats:
    """The sum of squared errors over classes; halved for two classes, as `sklearn.metrics.brier_score_loss` does."""
    classes = scores.shape[1]
    truth = outcomes[:, np.newaxis] == np.arange(classes)
    total: Floats = np.square(truth - scores).sum(axis=1)
    scale = 0.5 if classes == 2 else 1.0  # noqa: PLR2004 - two classes, twice the same error
    halved: Floats = scale * total
    return halved


def binary_accuracy(outcomes: Floats, scores: Floats) -> Floats:
    """One where the likelier class came true, else zero; at 0.5 exactly the answer is class 0, as in scikit-learn."""
    right: Floats = np.equal(scores > 0.5, outcomes == 1.0).astype(np.float64)  # noqa: PLR2004 - half the probability
    return right


def multiclass_accuracy(outcomes: Floats, scores: Floats) -> Floats:
    """One where the likeliest class (the first of equals) came true, else zero."""
    right: Floats = np.equal(scores.argmax(axis=1), outcomes).astype(np.float64)
    return right


def label_accuracy(outcomes: Floats, labels: Floats) -> Floats:
    """One where the class that was served came true, else zero."""
    right: Floats = np.equal(labels, outcomes).astype(np.float64)
    return right


def absolute_error(outcomes: Floats, scores: Floats) -> Floats:
    """The size of the difference."""
    error: Floats = np.abs(outcomes - scores)
    return error


def _surprise(probabilities: Floats) -> Floats:
    surprise: Floats = -np.log(np.clip(probabilities, _EPSILON, 1.0 - _EPSILON))
    return surprise


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss("log_loss", {"binary": binary_log_loss, "multiclass": multiclass_log_loss}),
            Loss("brier", {"binary": squared_error, "multiclass": multiclass_brier}),
            Loss(
                "accuracy",
                {"binary": binary_accuracy, "multiclass": multiclass_accuracy},
                lower_is_better=False,
                of_labels=label_accuracy,
            ),
            Loss("squared_error", {"regression": squared_error}),
            Loss("absolute_error", {"regression": absolute_error}),
        )
    }
)
"""Every mean metric by its name."""


def metrics_of(task: Task) -> tuple[str, ...]:
    """The names of the metrics that a task has, the usual one first."""
    return tuple(name for name, loss in LOSSES.items() if task in loss.functions)
