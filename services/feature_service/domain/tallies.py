"""Tallies: what a frame adds to the tiles of each entity."""

import struct
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.feature_service.domain.rings import HISTORY, Ring, entity_text
from shared.events import EntityEvent
from shared.features.bins import bin_of
from shared.features.distinct import hash_of
from shared.features.layouts import LayoutName
from shared.features.tiles import tile_of

_HEAD = struct.Struct("<3d")


@dataclass(frozen=True, slots=True)
class Tally:
    """What the frame at one offset of a source partition adds to one entity's ring.

    `cells` are lists of float64, in the order in which they are packed: tile, events, time of the latest, then the
    other fields of shared.features.layouts.SUMS or SPREAD; for the other layouts a number m and m entries: pairs of
    time and value, the latest first; hashes in ascending order; pairs of bin and count.
    """

    partition: int
    offset: int
    cells: Sequence[Sequence[float]]

    def pack(self) -> bytes:
        """Place of the mark (0: history), mark, number of cells, then the cells: all float64, little-endian."""
        numbers = [number for cell in self.cells for number in cell]
        return _HEAD.pack(self.partition + 1, self.offset + 1, len(self.cells)) + struct.pack(
            f"<{len(numbers)}d", *numbers
        )


def tally(ring: Ring, partition: int, offset: int, events: Sequence[EntityEvent]) -> dict[str, Tally]:
    """What a frame's events of the ring's source add, by entity. The events are valid ones.

    Args:
        ring: which column to tally, through which filter, and the width of its tiles.
        partition: the source partition.
        offset: the frame's offset there.
        events: events of that source, in any order.
    """
    counted = [event for event in events if _counts(ring, partition, event)]
    tiles: list[float] = tile_of([event.time for event in counted], ring.hop_s).tolist()
    found: dict[str, dict[float, list[tuple[float, Any]]]] = defaultdict(dict)
    column, single = ring.column, ring.join_keys[0] if len(ring.join_keys) == 1 else None
    for event, tile in zip(counted, tiles, strict=True):
        values = event.values
        entity = str(values[single]) if single else entity_text([values[key] for key in ring.join_keys])
        found[entity].setdefault(tile, []).append((event.time, 0.0 if column is None else values[column]))
    make = _CELLS[ring.layout.name]
    return {
        entity: Tally(partition, offset, [make(ring, tile, pairs) for tile, pairs in by_tile.items()])
        for entity, by_tile in found.items()
    }


def by_source(events: Iterable[EntityEvent]) -> Mapping[str, list[EntityEvent]]:
    """Events by the source they name, their order kept."""
    found: dict[str, list[EntityEvent]] = defaultdict(list)
    for event in events:
        found[event.source].append(event)
    return found


def _counts(ring: Ring, partition: int, event: EntityEvent) -> bool:
    if (event.time <= ring.after_s) != (partition == HISTORY):
        return False  # up to the seam only history counts, and after it only the topic
    return ring.where is None or bool(ring.where.holds(event.values))


def _sums(_: Ring, tile: float, pairs: Sequence[tuple[float, Any]]) -> list[float]:
    if len(pairs) == 1:
        time, value = pairs[0][0], float(pairs[0][1]) + 0.0  # -0.0 becomes 0.0
        return [tile, 1.0, time, value, time, value, value, value, value]
    ordered = sorted((time, float(value) + 0.0) for time, value in pairs)
    values = [value for _, value in ordered]
    total = 0.0
    for value in values:
        total += value  # one after the other, as training sets do
    (first_time, first), (last_time, last) = ordered[0], ordered[-1]
    return [tile, float(len(values)), last_time, last, first_time, first, total, min(values), max(values)]


def _spread(_: Ring, tile: float, pairs: Sequence[tuple[float, Any]]) -> list[float]:
    """Squared deviations are from the mean of these values, so that nothing cancels when they are merged.

    The mean is told by differences from the first value, which lose nothing however far from zero the values are.
    """
    ordered = sorted((time, float(value) + 0.0) for time, value in pairs)
    first_time, first = ordered[0]
    steps = [value - first for _, value in ordered]
    excess = spread = 0.0
    for step in steps:
        excess += step
    mean = excess / len(steps)
    for step in steps:
        spread += (step - mean) * (step - mean)
    return [tile, float(len(steps)), ordered[-1][0], first_time, first, excess, spread]


def _last_n(ring: Ring, tile: float, pairs: Sequence[tuple[float, Any]]) -> list[float]:
    latest = sorted(((time, float(value) + 0.0) for time, value in pairs), reverse=True)[: ring.layout.size]
    return [tile, float(len(pairs)), latest[0][0], float(len(latest)), *(number for pair in latest for number in pair)]


def _distinct(ring: Ring, tile: float, pairs: Sequence[tuple[float, Any]]) -> list[float]:
    least: list[float] = []
    for value in {(type(value), value): value for _, value in pairs}.values():
        hashed = hash_of(value)
        if hashed not in least:
            insort(least, hashed)
            del least[ring.layout.size :]
    return [tile, float(len(pairs)), max(time for time, _ in pairs), float(len(least)), *least]


def _bins(_: Ring, tile: float, pairs: Sequence[tuple[float, Any]]) -> list[float]:
    counts: dict[int, int] = defaultdict(int)
    for bin_number in bin_of([float(value) for _, value in pairs]).tolist():
        counts[bin_number] += 1
    entries = [float(number) for pair in sorted(counts.items()) for number in pair]
    return [tile, float(len(pairs)), max(time for time, _ in pairs), float(len(counts)), *entries]


_CELLS: Mapping[LayoutName, Callable[[Ring, float, Sequence[tuple[float, Any]]], list[float]]] = {
    "sums": _sums,
    "spread": _spread,
    "last_n": _last_n,
    "distinct": _distinct,
    "bins": _bins,
}
