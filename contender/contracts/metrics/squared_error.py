"""The square of the difference between outcome and prediction."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import REGRESSION


def squared_error(outcomes: Floats, scores: Floats) -> Floats:
    """The square of the difference."""
    error: Floats = np.square(outcomes - scores)
    return error


SQUARED_ERROR = Metric("squared_error", "squared error", values={REGRESSION.name: squared_error})
