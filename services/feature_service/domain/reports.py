"""How served values compare with those that history gives."""

from collections.abc import Sequence
from math import isclose
from typing import Any

from contender.contracts.feature_service import FeatureReport, FeatureValue

_TOLERANCE = 1e-9


def compare(feature: str, pairs: Sequence[tuple[FeatureValue, FeatureValue]]) -> FeatureReport:
    """The report of a feature, from pairs of the expected and the served value."""
    rows = max(1, len(pairs))
    both = [(expected, served) for expected, served in pairs if expected is not None and served is not None]
    errors = [_error(expected, served) for expected, served in both if not _same(expected, served)]
    return FeatureReport(
        feature,
        len(pairs),
        len(errors) / rows,
        sum(expected is not None and served is None for expected, served in pairs) / rows,
        sum(expected is None and served is not None for expected, served in pairs) / rows,
        sum(errors) / len(errors) if errors else 0.0,
        max(errors, default=0.0),
    )


def _same(expected: Any, served: Any) -> bool:
    if isinstance(expected, float) and isinstance(served, int | float):
        return isclose(expected, served, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if isinstance(expected, list) and isinstance(served, list):
        return len(expected) == len(served) and all(map(_same, expected, served))
    return bool(expected == served)


def _error(expected: Any, served: Any) -> float:
    are_numbers = isinstance(expected, int | float) and isinstance(served, int | float)
    return abs(expected - served) if are_numbers else 1.0
