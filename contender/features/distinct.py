"""Counting different values: the k least hashes of a set tell its size, and of two sets that of their union.

Source: Beyer, Haas, Reinwald, Sismanis, Gemulla, On synopses for distinct-value estimation under multiset operations,
SIGMOD 2007: exact below k values; from k on (k - 1) / (the k-th least hash) is unbiased.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from contender.contracts.values import Scalar

NONE = 2.0
"""Stands where there is no hash: greater than any."""

_BITS = 52


def hash_of(value: Scalar) -> float:
    """A value as a number in (0, 1) that looks random; 17 and "17" differ, 17 and 17.0 do not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = f"{type(value).__name__[0]}{value}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ((int.from_bytes(digest) >> (64 - _BITS)) + 0.5) / (1 << _BITS)


def hashes_of(values: Iterable[Scalar]) -> NDArray[np.float64]:
    """`hash_of` for many values, each different one hashed once; shape (values,)."""
    known: dict[tuple[type, Scalar], float] = {}
    listed = list(values)
    for value in listed:
        if (type(value), value) not in known:
            known[type(value), value] = hash_of(value)
    return np.array([known[type(value), value] for value in listed], dtype=np.float64)


def estimate(least: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of different values.

    Args:
        least: per row the k least different hashes in ascending order, NONE where there are fewer; shape (rows, k).
    """
    held = (least < NONE).sum(axis=-1)
    size = least.shape[-1]
    beyond = np.rint((size - 1) / least[..., -1]).astype(np.int64)
    found: NDArray[np.int64] = np.where(held < size, held, beyond)
    return found
