"""The mean of a column."""

import numpy as np

from contender.features.folding import folded
from contender.features.kinds.kind import OfColumn
from contender.features.layouts.sums import TOTAL
from contender.features.spans import Floats, Spans
from contender.features.windows import Window


class Mean(OfColumn):
    """The mean of a column."""

    kind = "mean"
    is_whole = False

    def of_window(self, window: Window) -> Floats:
        """The sum of the cells over their count."""
        means: Floats = window.sums[:, TOTAL] / np.maximum(window.events, 1.0)
        return means

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The sum of the values over their count."""
        return folded(values, spans, np.add, 0.0) / spans.count


mean = Mean.over
