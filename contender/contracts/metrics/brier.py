"""The Brier score: the squared error of probabilities."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.metrics.squared_error import squared_error
from contender.contracts.tasks import BINARY, MULTICLASS


def multiclass_brier(outcomes: Floats, scores: Floats) -> Floats:
    """The sum of squared errors over classes; halved for two classes, as `sklearn.metrics.brier_score_loss` does."""
    classes = scores.shape[1]
    truth = outcomes[:, np.newaxis] == np.arange(classes)
    total: Floats = np.square(truth - scores).sum(axis=1)
    scale = 0.5 if classes == 2 else 1.0  # noqa: PLR2004 - two classes, twice the same error
    scaled: Floats = scale * total
    return scaled


BRIER = Metric(
    "brier",
    "Brier score",
    values={BINARY.name: squared_error, MULTICLASS.name: multiclass_brier},
    value_range=lambda task, _clip: (0.0, {BINARY.name: 1.0}.get(task, 2.0)),
)
