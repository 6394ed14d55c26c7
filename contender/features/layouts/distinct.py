"""Counts different values: the k least hashes of a set give its size, and those of two sets the size of their union.

Source: Beyer, Haas, Reinwald, Sismanis, Gemulla, On synopses for distinct-value estimation under multiset operations,
SIGMOD 2007: exact below k values; from k on (k - 1) / (the k-th least hash) is unbiased.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from contender.contracts.values import Scalar
from contender.features.layouts.layout import HEAD, HEAD_BYTES, Cell, Layout, Pair, entries_of

NONE = 2.0
"""Marks a missing hash: greater than any hash."""

_BITS = 52


@dataclass(frozen=True, slots=True)
class Distinct(Layout):
    """The head, and the `size` least different hashes in ascending order, NONE where there are fewer."""

    name: ClassVar[str] = "distinct"

    @property
    def cell_bytes(self) -> int:
        """Bytes of one tile."""
        return HEAD_BYTES + 8 * self.size

    def keep(self, values: Sequence[Any]) -> list[float]:
        """The hashes of values."""
        return [float(number) for number in hashes_of(values)]

    def pack(self, cell: Cell) -> bytes:
        """The bytes of a cell."""
        hashes = entries_of(cell)
        numbers = [*cell[: len(HEAD)], *hashes, *[NONE] * (self.size - len(hashes))]
        return struct.pack(f"<{len(numbers)}d", *numbers)

    def _body(self, ordered: Sequence[Pair]) -> list[float]:
        return self._least(number for _, number in ordered)

    def _merged_body(self, cell: Cell, other: Cell) -> list[float]:
        return self._least([*entries_of(cell), *entries_of(other)])

    def _least(self, hashes: Iterable[float]) -> list[float]:
        least = sorted(set(hashes))[: self.size]
        return [float(len(least)), *least]


def hash_of(value: Scalar) -> float:
    """A value as a number in (0, 1) that looks random; 17 and "17" differ, 17 and 17.0 do not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = f"{type(value).__name__[0]}{value}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ((int.from_bytes(digest) >> (64 - _BITS)) + 0.5) / (1 << _BITS)


def hashes_of(values: Iterable[Scalar]) -> NDArray[np.float64]:
    """`hash_of` for many values, each different one hashed once; shape (values,)."""
    listed = [(type(value), value) for value in values]
    hashes = {typed: hash_of(typed[1]) for typed in dict.fromkeys(listed)}
    return np.array([hashes[typed] for typed in listed], dtype=np.float64)


def estimate(least: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of different values.

    Args:
        least: per row the k least different hashes in ascending order, NONE where there are fewer; shape (rows, k).
    """
    held = (least < NONE).sum(axis=-1)
    size = least.shape[-1]
    beyond = np.rint((size - 1) / least[..., -1]).astype(np.int64)
    numbers: NDArray[np.int64] = np.where(held < size, held, beyond)
    return numbers
