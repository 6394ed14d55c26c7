"""The contents of a ring in Python, and how tallies merge into them; for Redis store/merge.lua does the same."""

import struct
from dataclasses import dataclass, field

from contender.features.layouts import Cell
from services.feature_service.domain.rings import MARK_BYTES, Ring, StoredRing
from services.feature_service.domain.tallies import Tally


@dataclass
class RingContents:
    """One entity's ring: cells by slot, the base behind them, and offset marks by their index (0: history's)."""

    ring: Ring
    cells: dict[int, Cell] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)

    def apply(self, tally: Tally) -> int:
        """Merge a tally, unless its offset mark shows that it is in already; returns the number of late events."""
        index = tally.partition + 1
        if self.marks.get(index, 0) >= tally.offset + 1:
            return 0
        self.marks[index] = tally.offset + 1
        late = 0
        for cell in tally.cells:
            slot = int(cell[0]) % self.ring.slots
            held = self.cells.get(slot)
            if held is None or held[0] == cell[0]:
                self._put(slot, cell)
            elif held[0] < cell[0]:
                self._put_base(held)
                self.cells[slot] = cell
            else:
                late += int(cell[1])
                self._put_base(cell)
        return late

    def _put(self, slot: int, cell: Cell) -> None:
        held = self.cells.get(slot)
        self.cells[slot] = cell if held is None else self.ring.layout.merge(held, cell)

    def _put_base(self, cell: Cell) -> None:
        if self.ring.has_base:
            self._put(self.ring.slots, cell)

    def stored(self) -> StoredRing:
        """The ring as a store holds it."""
        size = self.ring.layout.cell_bytes
        value = bytearray(self.ring.largest_bytes(max(self.marks)))
        for slot, cell in self.cells.items():
            value[slot * size : (slot + 1) * size] = self.ring.layout.pack(cell)
        for index, mark in self.marks.items():
            struct.pack_into("<d", value, self.ring.cells_bytes + MARK_BYTES * index, mark)
        return StoredRing(bytes(value))
