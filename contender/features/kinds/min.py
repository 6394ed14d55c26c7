"""The least value of a column."""

from math import inf

import numpy as np

from contender.features.folding import folded
from contender.features.kinds.kind import OfColumn
from contender.features.layouts.sums import LOW
from contender.features.spans import Floats, Spans
from contender.features.windows import Window


class Min(OfColumn):
    """The least value of a column."""

    kind = "min"

    def of_window(self, window: Window) -> Floats:
        """The least of the cells' own."""
        low: Floats = np.minimum.reduce(window.field_where(LOW, inf), axis=1)
        return low if window.has_events else np.where(np.isfinite(low), low, 0.0)

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The least of the values."""
        return folded(values, spans, np.minimum, inf)


min = Min.over  # noqa: A001 - as polars and SQL call it
