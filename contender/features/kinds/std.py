"""The sample standard deviation of a column (one degree of freedom less)."""

from collections.abc import Iterator

import numpy as np

from contender.features.folding import blocks_of
from contender.features.kinds.kind import OfColumn
from contender.features.layouts import COUNT, Spread
from contender.features.layouts.spread import EXCESS, FIRST, SPREAD
from contender.features.spans import Floats, Indices, Spans, values_at
from contender.features.windows import Window


class Std(OfColumn):
    """The sample standard deviation of a column; null below two events."""

    kind = "std"
    least_events = 2
    is_whole = False

    @property
    def layout(self) -> Spread:
        """Squared deviations from each tile's own mean."""
        return Spread()

    def of_window(self, window: Window) -> Floats:
        """From squared deviations within the cells, and those of the cells' own means from the window's.

        Means are differences from one of the window's values: far from zero, sums are rounded to more than values
        differ.
        """
        some = window.field_at(window.inside.argmax(axis=1), FIRST)
        counts = window.field_where(COUNT, 0.0)
        apart = window.numbers[..., FIRST] - some[:, None] + window.numbers[..., EXCESS] / np.maximum(counts, 1.0)
        mean = (counts * apart).sum(axis=1) / np.maximum(window.events, 1.0)
        apart = apart - mean[:, None]
        spread = (window.field_where(SPREAD, 0.0) + counts * apart * apart).sum(axis=1)
        deviations: Floats = np.sqrt(spread / np.maximum(window.events - 1.0, 1.0))
        return deviations

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """From squared deviations within the blocks, and those of the blocks' own means from the row's.

        Nothing cancels, as all terms are positive, and means are differences from a row's first value.
        """
        earliest = spans.earliest()
        first = np.where(earliest < 0, 0.0, values_at(values, earliest))
        excess, spread = np.zeros(len(spans.row)), np.zeros(len(spans.row))
        for size, which, apart, _ in _deviations(values, spans, first):
            excess[which] += size * apart
        means = np.zeros(spans.rows)
        np.add.at(means, spans.row, excess)
        means /= np.maximum(spans.count, 1)
        for size, which, apart, own in _deviations(values, spans, first):
            from_mean = apart - means[spans.row[which]]
            spread[which] += own + size * from_mean * from_mean
        totals = np.zeros(spans.rows)
        np.add.at(totals, spans.row, spread)
        deviations: Floats = np.sqrt(totals / (spans.count - 1))
        return deviations


std = Std.over


def _deviations(values: Floats, spans: Spans, first: Floats) -> Iterator[tuple[int, Indices, Floats, Floats]]:
    """The blocks of slices: size, slices, differences of the blocks' means from `first`, and spreads.

    `first` has shape (rows,). A spread is the sum of squared deviations from the block's own mean; blocks merge as in
    Chan, Golub, LeVeque, Updating formulae, 1979. `excess` is the sum of the differences from a block's first value.
    """
    begins, excess, spread, level = values, np.zeros(len(values)), np.zeros(len(values)), 0
    for at, which, block in blocks_of(spans):
        if at > level:
            whole, half = len(begins) // 2 * 2, 1 << level
            even, odd = slice(0, whole, 2), slice(1, whole, 2)
            step = begins[odd] - begins[even]
            between = step + (excess[odd] - excess[even]) / half
            spread = spread[even] + spread[odd] + between * between * (half / 2)
            excess = excess[even] + excess[odd] + half * step
            begins, level = begins[even], at
        size = 1 << at
        apart = begins[block] - first[spans.row[which]] + excess[block] / size
        yield size, which, apart, spread[block]
