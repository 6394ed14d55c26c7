"""Accuracy: the share of rows whose label came true."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import BINARY, EVEN, MULTICLASS


def binary_accuracy(outcomes: Floats, scores: Floats) -> Floats:
    """One where the likelier class came true, else zero; at 0.5 exactly the answer is class 0, as in scikit-learn."""
    right: Floats = np.equal(scores > EVEN, outcomes == 1.0).astype(np.float64)
    return right


def multiclass_accuracy(outcomes: Floats, scores: Floats) -> Floats:
    """One where the likeliest class (the first of equals) came true, else zero."""
    right: Floats = np.equal(scores.argmax(axis=1), outcomes).astype(np.float64)
    return right


def label_accuracy(outcomes: Floats, labels: Floats) -> Floats:
    """One where the class that was served came true, else zero."""
    right: Floats = np.equal(labels, outcomes).astype(np.float64)
    return right


ACCURACY = Metric(
    "accuracy",
    "accuracy",
    lower_is_better=False,
    values={BINARY.name: binary_accuracy, MULTICLASS.name: multiclass_accuracy},
    label_values=label_accuracy,
    value_range=lambda _task, _clip: (0.0, 1.0),
)
