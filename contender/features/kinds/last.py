"""The latest value of a column; of values with the same time the greatest."""

from math import inf

from contender.features.kinds.kind import OfColumn
from contender.features.layouts import LAST_TIME
from contender.features.layouts.sums import LAST
from contender.features.spans import Floats, Spans, values_at
from contender.features.windows import Window


class Last(OfColumn):
    """The latest value of a column; of values with the same time the greatest."""

    kind = "last"

    def of_window(self, window: Window) -> Floats:
        """The last value of the cell with the latest event: no two cells hold events of the same moment."""
        return window.field_at(window.field_where(LAST_TIME, -inf).argmax(axis=1), LAST)

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The last event of each row's slices, which are in the order of time and value."""
        return values_at(values, spans.latest(1)[:, 0])


last = Last.over
