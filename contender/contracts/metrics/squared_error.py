"""The square of the difference between outcome and prediction, and the same where at most a limit counts."""

import numpy as np

from contender.contracts.metrics.absolute_error import winsorised_absolute_error
from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import REGRESSION


def squared_error(outcomes: Floats, scores: Floats) -> Floats:
    """The square of the difference."""
    error: Floats = np.square(outcomes - scores)
    return error


def winsorised_squared_error(outcomes: Floats, scores: Floats, limit: float) -> Floats:
    """The square of the difference; a larger difference counts as the limit."""
    error: Floats = np.square(winsorised_absolute_error(outcomes, scores, limit))
    return error


SQUARED_ERROR = Metric("squared_error", "squared error", values={REGRESSION.name: squared_error})
WINSORISED_SQUARED_ERROR = Metric(
    "winsorised_squared_error",
    "winsorised squared error",
    needs="error_limit",
    limited_values={REGRESSION.name: winsorised_squared_error},
    limited_range=lambda limit: (0.0, limit**2),
)
