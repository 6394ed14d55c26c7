"""Plain statistics of independent rows, which the sums over unit groups are compared with."""

from math import inf, sqrt

import numpy as np
from numpy.typing import ArrayLike

from services.feedback_service.domain.sums.estimates import Estimate


def estimate_of(values: ArrayLike) -> Estimate:
    """The mean of one value per row, with the standard error of independent rows."""
    array = np.asarray(values, dtype=np.float64)
    error = array.std(ddof=1) / sqrt(array.size) if array.size > 1 else inf
    return Estimate(float(array.mean()), float(error), int(array.size))


def share(n: int, hits: int) -> Estimate:
    """The share of hits among n rows."""
    rate = hits / n
    return Estimate(rate, sqrt(rate * (1 - rate) / (n - 1)), n)
