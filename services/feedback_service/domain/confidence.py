"""Confidence sequences: intervals and p-values that stay valid however often someone looks."""

from math import isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray

from services.feedback_service.domain.sums.estimates import ConfidenceSequence, Estimate

__all__ = ["ConfidenceSequence", "confidence_sequence", "finite", "half_width", "p_value"]

Floats = NDArray[np.float64]


def confidence_sequence(estimate: Estimate, *, alpha: float, tuning_n: int) -> ConfidenceSequence:
    """The look at `estimate`, a mean or a difference of two means.

    Args:
        estimate: Value, standard error and number of rows; for a difference the rows of both arms together.
        alpha: The probability, over all looks together, that the interval ever misses the truth.
        tuning_n: The number of rows at which the interval is tightest. It must be fixed before the first look.

    Raises:
        ValueError: `alpha` is not between 0 and 1 or `tuning_n` is not positive.
    """
    if not estimate.varies:
        return ConfidenceSequence(estimate.value, -np.inf, np.inf, 1.0, estimate.n)
    reach = float(half_width(estimate.standard_error, estimate.n, alpha=alpha, tuning_n=tuning_n))
    p = float(p_value(estimate.value, estimate.standard_error, estimate.n, alpha=alpha, tuning_n=tuning_n))
    return ConfidenceSequence(estimate.value, estimate.value - reach, estimate.value + reach, p, estimate.n)


def half_width(standard_error: ArrayLike, n: ArrayLike, *, alpha: float, tuning_n: int) -> Floats:
    """Half the width of the asymptotic confidence sequence, element by element.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, Time-uniform central limit theory and asymptotic confidence
    sequences, arXiv 2103.06476. With the variance per row s^2 = n se^2 and A = n rho^2 + 1 it is
    s sqrt(2 A ln(sqrt(A) / alpha)) / (n rho).
    """
    rows = np.asarray(n, dtype=np.float64)
    rho_squared = _rho_squared(alpha, tuning_n)
    a = rows * rho_squared + 1.0
    deviation = np.asarray(standard_error, dtype=np.float64) * np.sqrt(rows)
    width: Floats = deviation * np.sqrt(2.0 * a * (0.5 * np.log(a) - np.log(alpha))) / (rows * np.sqrt(rho_squared))
    return width


def p_value(value: ArrayLike, standard_error: ArrayLike, n: ArrayLike, *, alpha: float, tuning_n: int) -> Floats:
    """The always-valid p-value of `value` being zero, element by element; it falls below `alpha` with the interval.

    It is the inverse of the mixture martingale behind `half_width` (arXiv 2103.06476):
    min(1, sqrt(A) exp(-rho^2 n value^2 / (2 A se^2))).
    """
    rows = np.asarray(n, dtype=np.float64)
    rho_squared = _rho_squared(alpha, tuning_n)
    a = rows * rho_squared + 1.0
    z_squared = (np.asarray(value, dtype=np.float64) / np.asarray(standard_error, dtype=np.float64)) ** 2
    p: Floats = np.exp(np.minimum(0.0, 0.5 * np.log(a) - rho_squared * rows * z_squared / (2.0 * a)))
    return p


def _rho_squared(alpha: float, tuning_n: int) -> float:
    """The mixture's precision that makes the interval tightest at `tuning_n` (arXiv 2103.06476)."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if tuning_n < 1:
        raise ValueError(f"tuning_n must be at least 1, not {tuning_n}")
    twice_log = -2.0 * np.log(alpha)
    return float((twice_log + np.log1p(twice_log)) / tuning_n)


def finite(value: float) -> float | None:
    """A number as JSON has it."""
    return value if isfinite(value) else None
