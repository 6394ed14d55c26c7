"""The latest values of a tile, one by one."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from contender.features.layouts.layout import HEAD, HEAD_BYTES, Cell, Layout, Pair, entries_of, pairs_of, with_number


@dataclass(frozen=True, slots=True)
class LastN(Layout):
    """The head, and `size` pairs of time and value, the latest first; of one time greater values come first."""

    name: ClassVar[str] = "last_n"

    @property
    def cell_bytes(self) -> int:
        """Bytes of one tile."""
        return HEAD_BYTES + 16 * self.size

    def pack(self, cell: Cell) -> bytes:
        """The bytes of a cell; what is not there is 0."""
        numbers = [*cell[: len(HEAD)], *entries_of(cell)]
        return struct.pack(f"<{len(numbers)}d", *numbers).ljust(self.cell_bytes, b"\0")

    def _body(self, ordered: Sequence[Pair]) -> list[float]:
        return with_number(ordered[: -self.size - 1 : -1])

    def _merged_body(self, cell: Cell, other: Cell) -> list[float]:
        return with_number(sorted([*pairs_of(cell), *pairs_of(other)], reverse=True)[: self.size])
