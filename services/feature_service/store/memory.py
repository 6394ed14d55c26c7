"""A store in memory, with the same bytes as Redis: for tests, and for reading how a merge goes."""

import struct
from collections.abc import Mapping, Sequence

from services.feature_service.domain.rings import CELL_BYTES, COUNT, MARK_BYTES, Ring
from services.feature_service.domain.tallies import Cell, Tally
from services.feature_service.store.protocol import FramePosition

_CELL = struct.Struct("<8d")
_MARK = struct.Struct("<d")


class MemoryStore:
    """A FeatureStore that forgets everything with its process."""

    def __init__(self) -> None:
        self._values: dict[str, bytearray] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._applied: dict[int, int] = {}

    async def claim(self, frames: Sequence[FramePosition]) -> list[bool]:
        """Whether each frame is to be applied."""
        return [
            not frame.frame_id
            or self._seen.setdefault(frame.frame_id, (frame.partition, frame.offset)) == (frame.partition, frame.offset)
            for frame in frames
        ]

    async def merge(self, ring: Ring, tallies: Mapping[str, Sequence[Tally]]) -> int:
        """Merge tallies into rings; returns the number of late events."""
        late = 0
        for entity, several in tallies.items():
            value = self._values.setdefault(ring.key(entity), bytearray(ring.cells_bytes))
            late += sum(_apply(ring, value, one) for one in several)
        return late

    async def note_applied(self, offsets: Mapping[int, int]) -> None:
        """Note how far each partition has been merged."""
        for partition, offset in offsets.items():
            self._applied[partition] = max(offset, self._applied.get(partition, -1))

    async def persist(self) -> None:
        """Nothing to wait for."""

    async def is_applied(self, frame_id: str) -> bool:
        """Whether the frame of that id has been merged."""
        partition, offset = self._seen.get(frame_id, (-1, 0))
        return self._applied.get(partition, -1) >= offset

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key."""
        return [bytes(self._values[key]) if key in self._values else None for key in keys]

    async def is_ready(self) -> bool:
        """Always."""
        return True


def _apply(ring: Ring, value: bytearray, tally: Tally) -> int:
    place = ring.cells_bytes + tally.partition * MARK_BYTES
    value.extend(bytes(max(0, place + MARK_BYTES - len(value))))
    if _MARK.unpack_from(value, place)[0] >= tally.offset + 1:
        return 0
    late = 0.0
    for cell in tally.cells:
        at = int(cell.tile) % ring.slots * CELL_BYTES
        held = Cell(*_CELL.unpack_from(value, at))
        if held[COUNT] == 0 or held.tile < cell.tile:
            _CELL.pack_into(value, at, *cell)
        elif held.tile == cell.tile:
            _CELL.pack_into(value, at, *(held + cell))
        else:
            late += cell.events
    _MARK.pack_into(value, place, tally.offset + 1)
    return int(late)
