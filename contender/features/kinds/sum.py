"""The sum of a column."""

import numpy as np

from contender.features.folding import folded
from contender.features.kinds.kind import OfColumn
from contender.features.layouts.sums import TOTAL
from contender.features.spans import Floats, Spans
from contender.features.windows import Window


class Sum(OfColumn):
    """The sum of a column."""

    kind = "sum"

    def of_window(self, window: Window) -> Floats:
        """The totals of the cells added up."""
        return window.sums[:, TOTAL]

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The values added up."""
        return folded(values, spans, np.add, 0.0)


sum = Sum.over  # noqa: A001 - the field's word
