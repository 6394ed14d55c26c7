"""An approximate quantile of a column: within 5 % of the exact one, as `contender.features.layouts.bins` explains."""

from dataclasses import dataclass

import numpy as np

from contender.contracts.values import Scalar
from contender.features.conditions import Condition
from contender.features.errors import DefinitionError, caller
from contender.features.kinds.kind import Aggregation, Features, over_windows
from contender.features.layouts import Bins
from contender.features.layouts.bins import BINS, VALUES, bin_of, rank_of
from contender.features.spans import Floats, Spans
from contender.features.windows import Window


@dataclass(frozen=True)
class Quantile(Aggregation):
    """The quantile `q` of a column."""

    kind = "quantile"
    is_whole = False

    q: float = 0.0

    @classmethod
    def over(
        cls,
        column: str,
        q: float,
        *windows: str,
        name: str = "",
        description: str = "",
        where: Condition | None = None,
        default: Scalar = None,
    ) -> Features:
        """An approximate quantile of a column: the value is within 5 % of the exact one."""
        if not 0 < q < 1:
            raise DefinitionError(f"the quantile {q} is not between 0 and 1", caller())
        texts = {"name": name, "description": description}
        return over_windows(cls, windows, column=column, where=where, default=default, q=q, **texts)

    @property
    def layout(self) -> Bins:
        """Counts by bin of each tile."""
        return Bins()

    @property
    def prefix(self) -> str:
        """What the feature's own name begins with."""
        return f"p{self.q * 100:g}".replace(".", "_")

    @property
    def words(self) -> str:
        """The aggregation in words."""
        return f"quantile {self.q:g} of {self.column}"

    def online(self, window: Window, span: slice) -> list[float]:
        """The bin that the rank lies in, by the counts of all cells together."""
        counts = np.where(window.inside[span, :, None], window.cells.counts[span], 0).sum(axis=1, dtype=np.int64)
        below = (np.cumsum(counts, axis=1) < rank_of(window.count[span], self.q)[:, None]).sum(axis=1)
        quantiles: list[float] = VALUES[np.minimum(below, BINS - 1)].tolist()
        return quantiles

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """The bin that the rank lies in, bit by bit of its number, the highest first.

        The events with a 0 are moved before those with a 1, and each row goes where its rank lies. Source: Claude,
        Navarro, Ordonez, The wavelet matrix, 2015.
        """
        bins, low, high = bin_of(values), spans.low, spans.high
        rank = rank_of(spans.count, self.q) - 1
        numbers = np.zeros(spans.rows, dtype=np.int64)
        for bit in reversed(range((BINS - 1).bit_length())):
            is_set = (bins >> bit) & 1 == 1
            zeros = np.append(0, np.cumsum(~is_set))
            zeros_low, zeros_high = zeros[low], zeros[high]
            below = spans.summed(zeros_high - zeros_low)
            above = rank >= below
            rank = np.where(above, rank - below, rank)
            numbers += above.astype(np.int64) << bit
            goes_right = above[spans.row]
            low = np.where(goes_right, zeros[-1] + low - zeros_low, zeros_low)
            high = np.where(goes_right, zeros[-1] + high - zeros_high, zeros_high)
            bins = np.concatenate([bins[~is_set], bins[is_set]])
        return VALUES[np.minimum(numbers, BINS - 1)]


quantile = Quantile.over
