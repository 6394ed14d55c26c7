"""Spread: the squared deviations of a tile's values from their own mean, so that nothing cancels when tiles merge.

Source: Chan, Golub, LeVeque, Updating formulae, 1979. Means are differences from the first value, which lose nothing
however far from zero the values are: a total would be rounded to more than the values differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from contender.features.layouts.layout import COUNT, HEAD, Cell, Layout, Pair

FIELDS = (*HEAD, "first_time", "first", "excess", "spread")
"""`spread` is the sum of squared deviations from the tile's own mean, `excess` that of differences from `first`."""

FIRST_TIME, FIRST, EXCESS, SPREAD = range(len(HEAD), len(FIELDS))


@dataclass(frozen=True, slots=True)
class Spread(Layout):
    """Seven float64: all of `FIELDS`."""

    name: ClassVar[str] = "spread"
    fields: ClassVar[tuple[str, ...]] = FIELDS

    def _body(self, ordered: Sequence[Pair]) -> list[float]:
        first_time, first = ordered[0]
        steps = [value - first for _, value in ordered]
        excess = spread = 0.0
        for step in steps:
            excess += step
        mean = excess / len(steps)
        for step in steps:
            spread += (step - mean) * (step - mean)
        return [first_time, first, excess, spread]

    def _merged_body(self, cell: Cell, other: Cell) -> list[float]:
        if (other[FIRST_TIME], other[FIRST]) < (cell[FIRST_TIME], cell[FIRST]):
            cell, other = other, cell
        step = other[FIRST] - cell[FIRST]
        apart = step + (other[EXCESS] / other[COUNT] - cell[EXCESS] / cell[COUNT])
        count = cell[COUNT] + other[COUNT]
        return [
            cell[FIRST_TIME],
            cell[FIRST],
            cell[EXCESS] + other[EXCESS] + other[COUNT] * step,
            cell[SPREAD] + other[SPREAD] + apart * apart * cell[COUNT] * other[COUNT] / count,
        ]
