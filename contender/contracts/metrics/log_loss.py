"""Log loss: the surprise at the class that came true."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import BINARY, MULTICLASS

_EPSILON = float(np.finfo(np.float64).eps)


def binary_log_loss(outcomes: Floats, scores: Floats) -> Floats:
    """Log loss of a probability, clipped to [eps, 1 - eps] of float64 as `sklearn.metrics.log_loss` does."""
    return _surprise(np.where(outcomes == 1.0, scores, 1.0 - scores))


def multiclass_log_loss(outcomes: Floats, scores: Floats) -> Floats:
    """Log loss of the probability given to the true class, clipped as in `binary_log_loss`."""
    return _surprise(scores[np.arange(len(outcomes)), outcomes.astype(np.intp)])


def _surprise(probabilities: Floats) -> Floats:
    surprise: Floats = -np.log(np.clip(probabilities, _EPSILON, 1.0 - _EPSILON))
    return surprise


LOG_LOSS = Metric("log_loss", "log loss", values={BINARY.name: binary_log_loss, MULTICLASS.name: multiclass_log_loss})
