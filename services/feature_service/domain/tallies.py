"""Tallies: what a frame adds to the tiles of each entity."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from contender.features.layouts import Cell, Pair
from contender.features.tiles import tile_of
from services.feature_service.domain.rings import HISTORY, Ring, entity_text
from shared.events import EntityEvent


@dataclass(frozen=True, slots=True)
class Tally:
    """What the frame at one offset of a source partition adds to the tiles of one entity's ring."""

    partition: int
    offset: int
    cells: Sequence[Cell]

    def pack(self) -> bytes:
        """All float64, little-endian: index of the mark (0: history), mark, number of cells, the cells."""
        numbers = [self.partition + 1, self.offset + 1, len(self.cells), *chain.from_iterable(self.cells)]
        return struct.pack(f"<{len(numbers)}d", *numbers)


def tally(ring: Ring, partition: int, offset: int, events: Sequence[EntityEvent]) -> dict[str, Tally]:
    """The tallies of a frame's valid events of the ring's source, by entity.

    Args:
        ring: which column to tally, through which filter, and the width of its tiles.
        partition: the source partition.
        offset: the frame's offset there.
        events: events of that source, in any order.
    """
    counted = [event for event in events if _counts(ring, partition, event)]
    if not counted:
        return {}
    tiles: list[float] = tile_of([event.time for event in counted], ring.hop_s).tolist()
    pairs: dict[str, dict[float, list[Pair]]] = defaultdict(dict)
    column, single = ring.column, ring.join_keys[0] if len(ring.join_keys) == 1 else None
    numbers = ring.layout.keep([0.0 if column is None else event.values[column] for event in counted])
    for event, tile, number in zip(counted, tiles, numbers, strict=True):
        values = event.values
        entity = str(values[single]) if single else entity_text([values[key] for key in ring.join_keys])
        pairs[entity].setdefault(tile, []).append((event.time, number))
    return {
        entity: Tally(partition, offset, [ring.layout.cell(tile, by_tile[tile]) for tile in sorted(by_tile)])
        for entity, by_tile in pairs.items()
    }


def by_source(events: Iterable[EntityEvent]) -> Mapping[str, list[EntityEvent]]:
    """Events by the source they name, their order kept."""
    by_name: dict[str, list[EntityEvent]] = defaultdict(list)
    for event in events:
        by_name[event.source].append(event)
    return by_name


def _counts(ring: Ring, partition: int, event: EntityEvent) -> bool:
    if (event.time <= ring.after_s) != (partition == HISTORY):
        return False  # up to the cutover only history counts, and after it only the topic
    return ring.where is None or bool(ring.where.holds(event.values))
