"""How served values compare with what history says."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any, Self

from services.feature_service.domain.windows import FeatureValue

_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Report:
    """How one feature's served values compare. Rates are shares of the compared values.

    `missing`: history has a value and nothing is served; `extra`: the other way round; `mismatch`: both, and they
    differ, by `error_mean` and at most `error_max`.
    """

    feature: str
    compared: int
    mismatch: float
    missing: float
    extra: float
    error_mean: float
    error_max: float

    @classmethod
    def of(cls, feature: str, pairs: Sequence[tuple[FeatureValue, FeatureValue]]) -> Self:
        """Compare pairs of what history says and what is served."""
        rows = max(1, len(pairs))
        both = [(one, other) for one, other in pairs if one is not None and other is not None]
        apart = [_error(one, other) for one, other in both if not _same(one, other)]
        return cls(
            feature,
            len(pairs),
            len(apart) / rows,
            sum(one is not None and other is None for one, other in pairs) / rows,
            sum(one is None and other is not None for one, other in pairs) / rows,
            sum(apart) / len(apart) if apart else 0.0,
            max(apart, default=0.0),
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _error(one: Any, other: Any) -> float:
    return abs(one - other) if isinstance(one, int | float) and isinstance(other, int | float) else 1.0
