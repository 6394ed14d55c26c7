"""The size of the difference between outcome and prediction, and the same where at most a limit of it counts."""

import numpy as np

from contender.contracts.metrics.metric import Floats, Metric
from contender.contracts.tasks import REGRESSION


def absolute_error(outcomes: Floats, scores: Floats) -> Floats:
    """The size of the difference."""
    error: Floats = np.abs(outcomes - scores)
    return error


def winsorised_absolute_error(outcomes: Floats, scores: Floats, limit: float) -> Floats:
    """The size of the difference; a larger one counts as the limit, so that one wild row moves the mean little.

    Source: winsorising as in Tukey, The future of data analysis, 1962, at a limit that is declared beforehand: one
    taken from the data would depend on the arm.
    """
    error: Floats = np.minimum(absolute_error(outcomes, scores), limit)
    return error


ABSOLUTE_ERROR = Metric("absolute_error", "absolute error", values={REGRESSION.name: absolute_error})
WINSORISED_ABSOLUTE_ERROR = Metric(
    "winsorised_absolute_error",
    "winsorised absolute error",
    needs="error_limit",
    limited_values={REGRESSION.name: winsorised_absolute_error},
    limited_range=lambda limit: (0.0, limit),
)
