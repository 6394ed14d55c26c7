"""The size of the difference between outcome and prediction."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import REGRESSION


def absolute_error(outcomes: Floats, scores: Floats) -> Floats:
    """The size of the difference."""
    error: Floats = np.abs(outcomes - scores)
    return error


ABSOLUTE_ERROR = Metric("absolute_error", "absolute error", values={REGRESSION.name: absolute_error})
