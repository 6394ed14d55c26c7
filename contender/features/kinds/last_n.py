"""The latest values of a column as a list."""

from dataclasses import dataclass
from math import nan

import numpy as np

from contender.features.conditions import Condition
from contender.features.errors import DefinitionError, caller
from contender.features.kinds.kind import Aggregation, Features, over_windows
from contender.features.layouts import COUNT, HEAD, LastN
from contender.features.spans import Floats, Spans, values_at
from contender.features.windows import Window

MOST_LAST = 100


@dataclass(frozen=True)
class LatestValues(Aggregation):
    """The latest `n` values of a column as a list, the latest first; fewer where there are fewer."""

    kind = "last_n"
    is_list = True

    n: int = 0

    @classmethod
    def over(
        cls, column: str, n: int, *windows: str, name: str = "", description: str = "", where: Condition | None = None
    ) -> Features:
        """The latest `n` values of a column as a list, the latest first; fewer where there are fewer."""
        if not 1 <= n <= MOST_LAST:
            raise DefinitionError(f"last_n holds from 1 to {MOST_LAST} values, not {n}", caller())
        return over_windows(cls, windows, column=column, name=name, description=description, where=where, n=n)

    @property
    def layout(self) -> LastN:
        """The latest values of each tile, one by one."""
        return LastN(self.n)

    @property
    def prefix(self) -> str:
        """What the feature's own name begins with."""
        return f"last_{self.n}"

    @property
    def words(self) -> str:
        """The aggregation in words."""
        return f"latest {self.n} values of {self.column}"

    def online(self, window: Window, span: slice) -> list[list[float]]:
        """The latest of what the cells hold."""
        numbers, size = window.numbers[span], window.cells.layout.size
        pairs = numbers[..., len(HEAD) :].reshape(*numbers.shape[:2], size, 2)
        held = np.arange(size) < numbers[..., COUNT, None]
        held &= window.inside[span, :, None]
        lists = []
        for moment, mask in zip(pairs, held, strict=True):
            times, values = moment[mask].T
            order = np.lexsort((-values, -times))[: self.n]
            lists.append(values[order].tolist())
        return lists

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The last events of each row's slices, which are in the order of time and value."""
        latest = spans.latest(self.n)
        return np.where(latest < 0, nan, values_at(values, latest))


last_n = LatestValues.over
