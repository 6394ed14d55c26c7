"""Tallies: what a frame adds to the tiles of each entity."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.feature_service.domain.rings import Ring, entity_text
from shared.events import EntityEvent
from shared.features.tiles import tile_of

_HEAD = struct.Struct("<3d")
_CELL = struct.Struct("<8d")


class Cell(NamedTuple):
    """One tile's aggregates, in the order in which they lie in a ring."""

    tile: float
    events: float
    total: float
    spread: float
    low: float
    high: float
    last_time: float
    last: float

    @classmethod
    def of_one(cls, tile: float, time: float, value: float) -> "Cell":
        """The tile of a single event."""
        return cls(tile, 1.0, value, 0.0, value, value, time, value)

    def __add__(self, other: object) -> "Cell":
        """Both cells of one tile merged; commutative.

        Squared deviations merge as in Chan, Golub, LeVeque, Updating formulae, 1979, which does not cancel. Of values
        with the same time the greatest is the last.
        """
        if not isinstance(other, Cell):
            return NotImplemented
        events = self.events + other.events
        apart = other.total / other.events - self.total / self.events
        return Cell(
            self.tile,
            events,
            self.total + other.total,
            self.spread + other.spread + apart * apart * self.events * other.events / events,
            min(self.low, other.low),
            max(self.high, other.high),
            *max((self.last_time, self.last), (other.last_time, other.last)),
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What the frame at one offset of a source partition adds to one entity's ring."""

    partition: int
    offset: int
    cells: Sequence[Cell]

    def pack(self) -> bytes:
        """Partition, offset mark, number of cells, then the cells: all float64, little-endian."""
        head = _HEAD.pack(self.partition, self.offset + 1, len(self.cells))
        return head + b"".join(_CELL.pack(*cell) for cell in self.cells)


def tally(ring: Ring, partition: int, offset: int, events: Sequence[EntityEvent]) -> dict[str, Tally]:
    """What a frame's events of the ring's source add, by entity. The events are valid ones.

    Args:
        ring: which column to tally, and the width of its tiles.
        partition: the source partition.
        offset: the frame's offset there.
        events: events of that source, in any order.
    """
    tiles: list[float] = tile_of([event.time for event in events], ring.hop_s).tolist()
    found: dict[str, dict[float, Cell]] = defaultdict(dict)
    for event, tile in zip(events, tiles, strict=True):
        # The event has passed its schema, so the key is text or a whole number and the column a number.
        entity = entity_text(event.values[ring.join_key])  # type: ignore[arg-type]
        value = 0.0 if ring.column is None else float(event.values[ring.column]) + 0.0  # type: ignore[arg-type]
        cells = found[entity]
        cell = Cell.of_one(tile, event.time, value)
        held = cells.get(tile)
        cells[tile] = cell if held is None else held + cell
    return {entity: Tally(partition, offset, list(cells.values())) for entity, cells in found.items()}


def by_source(events: Iterable[EntityEvent]) -> Mapping[str, list[EntityEvent]]:
    """Events by the source they name, their order kept."""
    found: dict[str, list[EntityEvent]] = defaultdict(list)
    for event in events:
        found[event.source].append(event)
    return found
