"""Cells in Python: how they are made, how two of one layout merge, and their bytes. store/merge.lua does the same."""

import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from contender.features.bins import BINS
from contender.features.distinct import NONE
from contender.features.layouts import HEAD, SPREAD, SUMS, Layout, LayoutName

Cell = Sequence[float]
"""Float64 in the order in which they are packed: tile, events, time of the latest, then the other fields of
contender.features.layouts.SUMS or SPREAD; for the other layouts a number m and m entries: pairs of time and value, the
latest first; hashes in ascending order; pairs of bin and count."""

Pair = tuple[float, float]
"""Time of an event, and what a layout keeps of its value: the value, its hash, or its bin."""

_TILE, _COUNT, _LAST_TIME, _HELD = range(4)
_LAST, _FIRST_TIME, _FIRST, _TOTAL, _LOW, _HIGH = range(len(HEAD), len(SUMS))
_SPREAD_FIRST_TIME, _SPREAD_FIRST, _EXCESS, _SPREAD = range(len(HEAD), len(SPREAD))


def cell_of(layout: Layout, tile: float, pairs: Sequence[Pair]) -> list[float]:
    """The cell of a tile's events, of which there is one at least, in any order."""
    if layout.name == "sums" and len(pairs) == 1:  # mostly: frames bring one event of an entity
        ((time, value),) = pairs
        return [tile, 1.0, time, value, time, value, value, value, value]
    ordered = sorted(pairs)
    return [tile, float(len(ordered)), ordered[-1][0], *_MADE[layout.name](layout, ordered)]


def merged(layout: Layout, one: Cell, other: Cell) -> list[float]:
    """Both cells as one; of different tiles the newer one's number stands."""
    head = [max(one[_TILE], other[_TILE]), one[_COUNT] + other[_COUNT], max(one[_LAST_TIME], other[_LAST_TIME])]
    if layout.name in _FIELDS:
        return [*head, *_FIELDS[layout.name](one, other)]
    if layout.name == "distinct":
        hashes = sorted({*one[_HELD + 1 :], *other[_HELD + 1 :]})[: layout.size]
        return [*head, float(len(hashes)), *hashes]
    pairs = [*_pairs(one), *_pairs(other)]
    if layout.name == "last_n":
        kept = sorted(pairs, reverse=True)[: layout.size]
    else:
        counts: dict[float, float] = {}
        for bin_number, count in pairs:
            counts[bin_number] = counts.get(bin_number, 0.0) + count
        kept = sorted(counts.items())
    return [*head, float(len(kept)), *(number for pair in kept for number in pair)]


def pack(layout: Layout, cell: Cell) -> bytes:
    """The bytes of a cell in a ring."""
    if layout.name in _FIELDS:
        return struct.pack(f"<{len(cell)}d", *cell)
    head = struct.pack("<3d", *cell[: len(HEAD)])
    if layout.name == "distinct":
        hashes = cell[_HELD + 1 :]
        return head + struct.pack(f"<{layout.size}d", *hashes, *[NONE] * (layout.size - len(hashes)))
    if layout.name == "last_n":
        numbers = cell[_HELD + 1 :]
        return (head + struct.pack(f"<{len(numbers)}d", *numbers)).ljust(layout.cell_bytes, b"\0")
    packed = bytearray(layout.cell_bytes)
    packed[: len(head)] = head
    for bin_number, count in _pairs(cell):
        struct.pack_into("<I", packed, len(head) + 4 * int(bin_number), int(count))
    return bytes(packed)


def unpack(layout: Layout, packed: bytes) -> Cell | None:
    """The cell of a ring's bytes; None where it holds nothing, or there are none."""
    if not packed:
        return None
    if layout.name in _FIELDS:
        cell = struct.unpack(f"<{len(packed) // 8}d", packed)
        return cell if cell[_COUNT] else None
    head = struct.unpack_from("<3d", packed)
    if not head[_COUNT]:
        return None
    if layout.name == "bins":
        counts = np.frombuffer(packed, dtype="<u4", count=BINS, offset=8 * len(HEAD))
        bins = counts.nonzero()[0].tolist()
        return [*head, float(len(bins)), *(float(number) for one in bins for number in (one, counts[one]))]
    entries: Sequence[float] = struct.unpack_from(f"<{len(packed) // 8 - len(HEAD)}d", packed, 8 * len(HEAD))
    if layout.name == "distinct":
        entries = [number for number in entries if number < NONE]
        return [*head, float(len(entries)), *entries]
    held = min(int(head[_COUNT]), layout.size)
    return [*head, float(held), *entries[: 2 * held]]


def _made_sums(_: Layout, ordered: Sequence[Pair]) -> list[float]:
    values = [value for _, value in ordered]
    total = 0.0
    for value in values:
        total += value  # one after the other, as training sets do
    return [values[-1], *ordered[0], total, min(values), max(values)]


def _made_spread(_: Layout, ordered: Sequence[Pair]) -> list[float]:
    """Squared deviations are from the mean of these values, so that nothing cancels when they are merged.

    The mean is told by differences from the first value, which lose nothing however far from zero the values are.
    """
    first_time, first = ordered[0]
    steps = [value - first for _, value in ordered]
    excess = spread = 0.0
    for step in steps:
        excess += step
    mean = excess / len(steps)
    for step in steps:
        spread += (step - mean) * (step - mean)
    return [first_time, first, excess, spread]


def _made_last_n(layout: Layout, ordered: Sequence[Pair]) -> list[float]:
    latest = ordered[: -layout.size - 1 : -1]
    return [float(len(latest)), *(number for pair in latest for number in pair)]


def _made_distinct(layout: Layout, ordered: Sequence[Pair]) -> list[float]:
    least = sorted({hashed for _, hashed in ordered})[: layout.size]
    return [float(len(least)), *least]


def _made_bins(_: Layout, ordered: Sequence[Pair]) -> list[float]:
    counts: dict[float, float] = {}
    for pair in ordered:
        counts[pair[1]] = counts.get(pair[1], 0.0) + 1.0
    return [float(len(counts)), *(number for pair in sorted(counts.items()) for number in pair)]


_MADE: Mapping[LayoutName, Callable[[Layout, Sequence[Pair]], list[float]]] = {
    "sums": _made_sums,
    "spread": _made_spread,
    "last_n": _made_last_n,
    "distinct": _made_distinct,
    "bins": _made_bins,
}
"""What a cell has after its head."""


def _pairs(cell: Cell) -> list[tuple[float, float]]:
    numbers = cell[_HELD + 1 :]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _sums(one: Cell, other: Cell) -> list[float]:
    _, last = max((one[_LAST_TIME], one[_LAST]), (other[_LAST_TIME], other[_LAST]))
    return [
        last,
        *min((one[_FIRST_TIME], one[_FIRST]), (other[_FIRST_TIME], other[_FIRST])),
        one[_TOTAL] + other[_TOTAL],
        min(one[_LOW], other[_LOW]),
        max(one[_HIGH], other[_HIGH]),
    ]


def _spread(one: Cell, other: Cell) -> list[float]:
    """Squared deviations merge as in Chan, Golub, LeVeque, Updating formulae, 1979, which does not cancel.

    Means are compared by differences from the first values, which lose nothing however far from zero the values are.
    """
    if (other[_SPREAD_FIRST_TIME], other[_SPREAD_FIRST]) < (one[_SPREAD_FIRST_TIME], one[_SPREAD_FIRST]):
        one, other = other, one
    step = other[_SPREAD_FIRST] - one[_SPREAD_FIRST]
    apart = step + (other[_EXCESS] / other[_COUNT] - one[_EXCESS] / one[_COUNT])
    count = one[_COUNT] + other[_COUNT]
    return [
        one[_SPREAD_FIRST_TIME],
        one[_SPREAD_FIRST],
        one[_EXCESS] + other[_EXCESS] + other[_COUNT] * step,
        one[_SPREAD] + other[_SPREAD] + apart * apart * one[_COUNT] * other[_COUNT] / count,
    ]


_FIELDS: Mapping[LayoutName, Callable[[Cell, Cell], list[float]]] = {"sums": _sums, "spread": _spread}
"""The layouts of a fixed list of fields, and what two cells are in those after the head."""
