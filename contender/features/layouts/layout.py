"""The base of all layouts: cells as numbers, how two merge, and their bytes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from contender.features.tiles import Floats

HEAD = ("tile", "count", "last_time")
"""The float64 that every tile begins with: its number, its events, and the time of the latest."""

TILE, COUNT, LAST_TIME = range(len(HEAD))
HEAD_BYTES = 8 * len(HEAD)

Cell = Sequence[float]
"""Float64: tile, events, time of the latest, then what the layout adds: its fields, or a number m and m entries."""

Pair = tuple[float, float]
"""Time of an event, and what a layout keeps of its value."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a tile; `size` is the number of entries where a feature chooses it.

    A subclass says what stands behind the head: for a fixed list of fields that is all it says.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ()
    """The float64 of a tile, head included, of a layout that is a fixed list of them."""

    summed: ClassVar[int] = len(HEAD)
    """How many leading numbers of a cell a window adds up."""

    size: int = 0

    @property
    def cell_bytes(self) -> int:
        """Bytes of one tile."""
        return 8 * len(self.fields)

    @property
    def entries(self) -> int:
        """How many entries a tile has room for."""
        return self.size

    def keep(self, values: Sequence[Any]) -> list[float]:
        """What is kept of the values of events."""
        return [float(value) + 0.0 for value in values]  # -0.0 becomes 0.0

    def cell(self, tile: float, pairs: Sequence[Pair]) -> list[float]:
        """The cell of a tile's events, of which there is at least one, in any order."""
        ordered = sorted(pairs)
        return [tile, float(len(ordered)), ordered[-1][0], *self._body(ordered)]

    def merge(self, cell: Cell, other: Cell) -> list[float]:
        """Both cells merged; of different tiles the newer one's number is kept."""
        head = [max(cell[TILE], other[TILE]), cell[COUNT] + other[COUNT], max(cell[LAST_TIME], other[LAST_TIME])]
        return [*head, *self._merged_body(cell, other)]

    def pack(self, cell: Cell) -> bytes:
        """The bytes of a cell in a ring."""
        return struct.pack(f"<{len(cell)}d", *cell)

    def arrays(self, packed: bytes, cells: int) -> tuple[Floats, NDArray[Any]]:
        """The cells of rings that follow one another.

        Args:
            packed: the bytes of the rings.
            cells: in each ring.

        Returns:
            The float64 of each cell, shape (rings, cells, numbers), and the other numbers that the layout has, shape
            (rings, cells, entries) or (rings, 0, 0).
        """
        numbers = np.frombuffer(packed, dtype="<f8").reshape(-1, cells, self.cell_bytes // 8)
        return numbers, np.zeros((len(numbers), 0, 0), dtype="<u4")

    def _body(self, ordered: Sequence[Pair]) -> list[float]:
        """What a cell has after its head, from events in the order of time and value."""
        raise NotImplementedError

    def _merged_body(self, cell: Cell, other: Cell) -> list[float]:
        """What two cells have after their head when they are merged."""
        raise NotImplementedError


def entries_of(cell: Cell) -> Cell:
    """The entries of a cell that has a number of them."""
    return cell[len(HEAD) + 1 :]


def pairs_of(cell: Cell) -> list[Pair]:
    """The entries of a cell, which are pairs of numbers."""
    numbers = entries_of(cell)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def with_number(entries: Sequence[Sequence[float]]) -> list[float]:
    """Entries with their number before them."""
    return [float(len(entries)), *(number for entry in entries for number in entry)]
