"""Bins of values for quantiles: each is 10 % wider than the one before, so a value is known to within 5 %.

Source: Masson, Rim, Lee, DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees, VLDB
2019, with a fixed range instead of a growing one, so that a tile has a fixed size.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contender.features.layouts.layout import HEAD, HEAD_BYTES, Cell, Layout, Pair, pairs_of, with_number
from contender.features.tiles import Floats

GROWTH = 1.1
SMALLEST = 1e-2
"""Values closer to zero than this are taken for zero."""

LARGEST = 1e7
"""Values farther from zero are taken for this."""


def _growing() -> NDArray[np.float64]:
    """SMALLEST to LARGEST by multiplication, which is the same to the last bit on every machine."""
    edges = [SMALLEST]
    while edges[-1] < LARGEST:
        edges.append(edges[-1] * GROWTH)
    return np.array(edges)


_POSITIVE = _growing()
EDGES: NDArray[np.float64] = np.concatenate([-_POSITIVE[::-1], _POSITIVE])
"""Bin i holds values in [EDGES[i - 1], EDGES[i]); a value is compared with them, so that both sides agree exactly."""

BINS = len(EDGES) + 1

_MIDDLES = np.concatenate([_POSITIVE[:-1] * 2 * GROWTH / (GROWTH + 1), _POSITIVE[-1:]])
VALUES: NDArray[np.float64] = np.concatenate([-_MIDDLES[::-1], [0.0], _MIDDLES])
"""The value that stands for those of each bin, shape (BINS,)."""


@dataclass(frozen=True, slots=True)
class Bins(Layout):
    """The head, and for each bin the number of its events: unsigned 32-bit numbers, filled up to whole float64."""

    name: ClassVar[str] = "bins"

    @property
    def cell_bytes(self) -> int:
        """Bytes of one tile."""
        return HEAD_BYTES + 4 * BINS + 4 * (BINS % 2)

    @property
    def entries(self) -> int:
        """All bins."""
        return BINS

    def keep(self, values: Sequence[Any]) -> list[float]:
        """The bins of values."""
        return [float(number) for number in bin_of([float(value) for value in values])]

    def pack(self, cell: Cell) -> bytes:
        """The bytes of a cell."""
        packed = bytearray(self.cell_bytes)
        packed[:HEAD_BYTES] = struct.pack("<3d", *cell[: len(HEAD)])
        for number, count in pairs_of(cell):
            struct.pack_into("<I", packed, HEAD_BYTES + 4 * int(number), int(count))
        return bytes(packed)

    def arrays(self, packed: bytes, cells: int) -> tuple[Floats, NDArray[Any]]:
        """The heads of cells, and their counts by bin."""
        raw = np.frombuffer(packed, dtype=np.uint8).reshape(-1, cells, self.cell_bytes)
        counts = raw[..., HEAD_BYTES : HEAD_BYTES + 4 * BINS].copy().view("<u4")
        return raw[..., :HEAD_BYTES].copy().view("<f8"), counts

    def _body(self, ordered: Sequence[Pair]) -> list[float]:
        return _counted((number, 1.0) for _, number in ordered)

    def _merged_body(self, cell: Cell, other: Cell) -> list[float]:
        return _counted([*pairs_of(cell), *pairs_of(other)])


def _counted(counts: Iterable[Pair]) -> list[float]:
    """Counts added up by bin."""
    totals: dict[float, float] = defaultdict(float)
    for number, count in counts:
        totals[number] += count
    return with_number(sorted(totals.items()))


def bin_of(values: ArrayLike) -> NDArray[np.int64]:
    """The bin of each value; the shape of `values`."""
    bins: NDArray[np.int64] = np.searchsorted(EDGES, np.asarray(values, dtype=np.float64), side="right")
    return bins


def rank_of(count: ArrayLike, q: float) -> NDArray[np.int64]:
    """Which of `count` values in ascending order, counted from 1, is the quantile q: the least with share q below."""
    rank: NDArray[np.int64] = np.maximum(1, np.ceil(np.asarray(count) * q - 1e-9)).astype(np.int64)
    return rank
