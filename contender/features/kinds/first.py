"""The earliest value of a column; of values with the same time the least."""

from math import inf

from contender.features.kinds.kind import OfColumn
from contender.features.layouts.sums import FIRST, FIRST_TIME
from contender.features.spans import Floats, Spans, values_at
from contender.features.windows import Window


class First(OfColumn):
    """The earliest value of a column; of values with the same time the least."""

    kind = "first"

    def of_window(self, window: Window) -> Floats:
        """The first value of the cell with the earliest event: no two cells hold events of the same moment."""
        return window.field_at(window.field_where(FIRST_TIME, inf).argmin(axis=1), FIRST)

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The first event of each row's slices, which are in the order of time and value."""
        return values_at(values, spans.earliest())


first = First.over
