"""Whether numbers of a declaration are within their bounds, and how an error names the bounds."""

import math


def within(value: float, bounds: tuple[float, float]) -> bool:
    """Whether a value is neither below nor above the bounds."""
    return bounds[0] <= value <= bounds[1]


def span(bounds: tuple[float, float]) -> str:
    """The bounds as an error names them."""
    return f"from {bounds[0]:,} to {bounds[1]:,}"


def is_range(bounds: tuple[float, float]) -> bool:
    """Whether the bounds are finite and apart, the lower one first."""
    low, high = bounds
    return math.isfinite(low) and math.isfinite(high) and low < high
