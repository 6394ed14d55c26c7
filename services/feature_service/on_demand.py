"""On-demand features row by row: where a function fails on a row, only that row has no value."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contender.features import DefinitionError, OnDemandView
from contender.features.arrays import Computed, Values, computed
from services.feature_service.metrics import INVALID
from shared.logs import logger

Columns = Sequence[tuple[type, Values]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RowFeatures:
    """Features of rows. `failed`, shape (rows,), marks the rows that have none; `reason` is the first one's error."""

    features: dict[str, Computed]
    failed: Mask
    reason: str = ""


def compute_rows(view: OnDemandView, columns: Columns, rows: int) -> RowFeatures:
    """Compute all rows that the function can answer, by halving: n bad rows take about n log2(rows) calls.

    Args:
        view: the view.
        columns: type and values of each request column, then of each input.
        rows: values in each column.
    """
    try:
        return RowFeatures(computed(view, columns), np.zeros(rows, dtype=np.bool_))
    except DefinitionError as error:
        if rows <= 1:
            return RowFeatures(_nothing(view, rows), np.ones(rows, dtype=np.bool_), str(error))
    middle = rows // 2
    before = compute_rows(view, [(kind, values[:middle]) for kind, values in columns], middle)
    after = compute_rows(view, [(kind, values[middle:]) for kind, values in columns], rows - middle)
    return RowFeatures(
        {name: _joined(before.features[name], after.features[name]) for name in view.features},
        np.concatenate([before.failed, after.failed]),
        before.reason or after.reason,
    )


@dataclass(frozen=True, slots=True)
class Failures:
    """Counts the rows that on-demand functions fail on, and logs a reason per view at most every `every_s` seconds."""

    every_s: float = 60.0
    monotonic: Callable[[], float] = time.monotonic
    _logged_at: dict[str, float] = field(default_factory=dict)

    def report(self, view: str, rows: int, reason: str) -> None:
        """Report the failed rows of one question."""
        INVALID.labels(view).inc(rows)
        now = self.monotonic()
        if now - self._logged_at.get(view, -self.every_s) >= self.every_s:
            self._logged_at[view] = now
            logger(__name__).warning("an on-demand function failed", view=view, rows=rows, reason=reason[:500])


def _nothing(view: OnDemandView, rows: int) -> dict[str, Computed]:
    return {
        name: Computed(np.zeros(rows, dtype=object if kind is str else kind), np.ones(rows, dtype=np.bool_))
        for name, kind in view.features.items()
    }


def _joined(before: Computed, after: Computed) -> Computed:
    return Computed(
        np.concatenate([before.values, after.values]),
        np.concatenate([before.missing, after.missing]),
    )
