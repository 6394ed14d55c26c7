"""Groups of units: rows of one unit resemble each other, so the groups are the independent observations."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BUCKETS = 200
"""Hash buckets of units: enough for a variance with 199 degrees of freedom, few enough to store per variant."""


def unit_buckets(units: Iterable[str]) -> NDArray[np.intp]:
    """The bucket of each unit, 0 to BUCKETS - 1, shape (units,).

    The hash is another one than the assignment's, so that every bucket holds units of every variant.
    """
    digests = (hashlib.blake2b(unit.encode(), digest_size=8).digest() for unit in units)
    return np.fromiter((int.from_bytes(digest) % BUCKETS for digest in digests), dtype=np.intp)


def effective_buckets(rows: Floats) -> float:
    """How many buckets of equal rows would be as uneven as these; 0 without rows.

    `rows` are counts by bucket, shape (BUCKETS,). A unit that brings most rows fills one bucket, so that the others say
    next to nothing of how much the rows vary: (sum r)^2 / sum r^2 (Kish, Survey Sampling, 1965, chapter 11.7).
    """
    squares = float(np.square(rows).sum())
    return float(rows.sum()) ** 2 / squares if squares else 0.0


def largest_share(rows: Floats) -> float:
    """The share of the rows that are in the fullest bucket: nearly all of it is one unit's where units are uneven."""
    total = float(rows.sum())
    return float(rows.max()) / total if total else 0.0
