"""How many different values a column has."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from contender.contracts.values import Scalar
from contender.features.conditions import Condition
from contender.features.errors import DefinitionError, caller
from contender.features.kinds.kind import Aggregation, Features, over_windows
from contender.features.layouts import HEAD, Distinct
from contender.features.layouts.distinct import NONE, estimate
from contender.features.spans import Floats, Spans
from contender.features.windows import Window

LEAST_DISTINCT = 16
"""Below, the estimate would say little."""

MOST_DISTINCT = 4096
USUAL_DISTINCT = 128


@dataclass(frozen=True)
class DistinctCount(Aggregation):
    """How many different values a column has, exact below `exact_to` of them."""

    kind = "distinct_count"
    never_null = True
    needs_numbers = False
    is_whole = True

    exact_to: int = 0

    @classmethod
    def over(
        cls,
        column: str,
        *windows: str,
        exact_to: int = USUAL_DISTINCT,
        name: str = "",
        description: str = "",
        where: Condition | None = None,
        default: Scalar = None,
    ) -> Features:
        """How many different values a column has.

        Exact below `exact_to` values in the window; from there on an estimate whose relative standard error is
        1 / sqrt(exact_to - 2). Every tile takes 8 bytes per value that is held.
        """
        if not LEAST_DISTINCT <= exact_to <= MOST_DISTINCT:
            message = f"exact_to is {exact_to}; give a number from {LEAST_DISTINCT} to {MOST_DISTINCT}"
            raise DefinitionError(message, caller())
        texts = {"name": name, "description": description}
        return over_windows(cls, windows, column=column, where=where, default=default, exact_to=exact_to, **texts)

    @property
    def layout(self) -> Distinct:
        """The least hashes of each tile."""
        return Distinct(self.exact_to)

    @property
    def prefix(self) -> str:
        """What the feature's own name begins with."""
        return "distinct"

    @property
    def words(self) -> str:
        """The aggregation in words."""
        return f"different values of {self.column}, exact to {self.exact_to}"

    def online(self, window: Window, span: slice) -> list[int]:
        """From the least different hashes of all cells together."""
        numbers, size = window.numbers, window.cells.layout.size
        hashes = np.where(window.inside[span, :, None], numbers[span, :, len(HEAD) :], NONE)
        hashes = np.where(hashes > 0.0, hashes, NONE)  # a cell that was never written holds zeros
        hashes = hashes.reshape(len(hashes), numbers.shape[1] * size)
        ordered = np.sort(hashes, axis=1)
        repeated = np.zeros(ordered.shape, dtype=np.bool_)
        repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        least = np.sort(np.where(repeated, NONE, ordered), axis=1)[:, :size]
        if least.shape[1] < size:
            least = np.pad(least, ((0, 0), (0, size - least.shape[1])), constant_values=NONE)
        counts: list[int] = estimate(least).tolist()
        return counts

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """From the least different hashes of each row's slices."""
        counts = np.zeros(spans.rows)
        ends = np.cumsum(np.bincount(spans.row, minlength=spans.rows)).tolist()
        lows, highs = spans.low.tolist(), spans.high.tolist()
        for row, (start, end) in enumerate(pairwise([0, *ends])):
            slices = [values[lows[span] : highs[span]] for span in range(start, end)]
            if slices:
                different = np.unique(slices[0] if len(slices) == 1 else np.concatenate(slices))
                many = len(different) >= self.exact_to
                counts[row] = estimate(different[None, : self.exact_to])[0] if many else len(different)
        return counts


distinct_count = DistinctCount.over
