"""Cells in Python: how two of one layout merge, and their bytes. The script in store/merge.lua does the same."""

import struct
from collections.abc import Callable, Mapping, Sequence

from shared.features.distinct import NONE
from shared.features.layouts import HEAD, SPREAD, SUMS, Layout, LayoutName

Cell = Sequence[float]
"""As domain.tallies describes it."""

_TILE, _COUNT, _LAST_TIME, _HELD = range(4)
_LAST, _FIRST_TIME, _FIRST, _TOTAL, _LOW, _HIGH = range(len(HEAD), len(SUMS))
_SPREAD_FIRST_TIME, _SPREAD_FIRST, _EXCESS, _SPREAD = range(len(HEAD), len(SPREAD))


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
