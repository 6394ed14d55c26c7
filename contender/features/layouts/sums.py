"""Sums: the total, the extremes, and the earliest and latest value of a tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from contender.features.layouts.layout import HEAD, LAST_TIME, Cell, Layout, Pair

FIELDS = (*HEAD, "last", "first_time", "first", "total", "low", "high")
LAST, FIRST_TIME, FIRST, TOTAL, LOW, HIGH = range(len(HEAD), len(FIELDS))


@dataclass(frozen=True, slots=True)
class Sums(Layout):
    """Nine float64: all of `FIELDS`."""

    name: ClassVar[str] = "sums"
    fields: ClassVar[tuple[str, ...]] = FIELDS
    summed: ClassVar[int] = len(FIELDS)

    def cell(self, tile: float, pairs: Sequence[Pair]) -> list[float]:
        """The cell of a tile's events."""
        if len(pairs) == 1:  # mostly: frames bring one event of an entity
            ((time, value),) = pairs
            return [tile, 1.0, time, value, time, value, value, value, value]
        ordered = sorted(pairs)
        return [tile, float(len(ordered)), ordered[-1][0], *self._body(ordered)]

    def _body(self, ordered: Sequence[Pair]) -> list[float]:
        values = [value for _, value in ordered]
        total = 0.0
        for value in values:
            total += value  # one after the other, as training sets do
        return [values[-1], *ordered[0], total, min(values), max(values)]

    def _merged_body(self, cell: Cell, other: Cell) -> list[float]:
        _, last = max((cell[LAST_TIME], cell[LAST]), (other[LAST_TIME], other[LAST]))
        return [
            last,
            *min((cell[FIRST_TIME], cell[FIRST]), (other[FIRST_TIME], other[FIRST])),
            cell[TOTAL] + other[TOTAL],
            min(cell[LOW], other[LOW]),
            max(cell[HIGH], other[HIGH]),
        ]
