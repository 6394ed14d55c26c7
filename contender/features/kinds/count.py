"""The number of events."""

import numpy as np

from contender.contracts.values import Scalar
from contender.features.conditions import Condition
from contender.features.kinds.kind import Aggregation, Features, over_windows
from contender.features.spans import Floats, Spans
from contender.features.windows import Window


class Count(Aggregation):
    """The number of events; it needs no column, so it is read from any sums of its filter."""

    kind = "count"
    never_null = True
    is_whole = True

    @classmethod
    def over(
        cls,
        *windows: str,
        name: str = "",
        description: str = "",
        where: Condition | None = None,
        default: Scalar = None,
    ) -> Features:
        """The number of events."""
        return over_windows(cls, windows, column=None, name=name, description=description, where=where, default=default)

    @property
    def words(self) -> str:
        """The aggregation in words."""
        return "number of events"

    def online(self, window: Window, span: slice) -> list[int]:
        """The counts of the cells added up."""
        return window.count[span]

    def offline(self, values: Floats, spans: Spans) -> Floats:  # noqa: ARG002 - events count, whatever their values
        """The length of the slices."""
        return spans.count.astype(np.float64)


count = Count.over
