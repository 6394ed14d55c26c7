"""Log loss: the surprise at the class that came true."""

from math import log, log1p

import numpy as np

from contender.contracts.metrics.metric import LOG_LOSS_CLIP, Floats, Metric
from contender.contracts.tasks import BINARY, MULTICLASS


def binary_log_loss(outcomes: Floats, scores: Floats, clip: float = LOG_LOSS_CLIP) -> Floats:
    """Log loss of a probability, clipped to [clip, 1 - clip].

    Without it a wrong score of 1 would cost twice a wrong one of 1e-8, or more: 32-bit scores are finer near 0.
    """
    return _surprise(np.where(outcomes == 1.0, scores, 1.0 - scores), clip)


def multiclass_log_loss(outcomes: Floats, scores: Floats, clip: float = LOG_LOSS_CLIP) -> Floats:
    """Log loss of the probability given to the true class, clipped as in `binary_log_loss`."""
    return _surprise(scores[np.arange(len(outcomes)), outcomes.astype(np.intp)], clip)


def _surprise(probabilities: Floats, clip: float) -> Floats:
    surprise: Floats = -np.log(np.clip(probabilities, clip, 1.0 - clip))
    return surprise


def _range(_: str, clip: float) -> tuple[float, float]:
    return -log1p(-clip), -log(clip)


_VALUES = {BINARY.name: binary_log_loss, MULTICLASS.name: multiclass_log_loss}
LOG_LOSS = Metric("log_loss", "log loss", values=_VALUES, clipped_values=_VALUES, value_range=_range)
