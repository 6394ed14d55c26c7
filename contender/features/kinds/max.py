"""The greatest value of a column."""

from math import inf

import numpy as np

from contender.features.folding import folded
from contender.features.kinds.kind import OfColumn
from contender.features.layouts.sums import HIGH
from contender.features.spans import Floats, Spans
from contender.features.windows import Window


class Max(OfColumn):
    """The greatest value of a column."""

    kind = "max"

    def of_window(self, window: Window) -> Floats:
        """The greatest of the cells' own."""
        high: Floats = np.maximum.reduce(window.field_where(HIGH, -inf), axis=1)
        return high if window.has_events else np.where(np.isfinite(high), high, 0.0)

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The greatest of the values."""
        return folded(values, spans, np.maximum, -inf)


max = Max.over  # noqa: A001 - as polars and SQL call it
