"""Groups of units: rows of one unit resemble each other, so the groups are the independent observations."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BUCKETS = 200
"""Hash buckets of units: enough for a variance with 199 degrees of freedom, few enough to store per variant."""


def unit_buckets(units: Iterable[str]) -> NDArray[np.intp]:
    """The bucket of each unit, 0 to BUCKETS - 1, shape (units,).

    The hash is another one than the assignment's, so that every bucket holds units of every variant.
    """
    digests = (hashlib.blake2b(unit.encode(), digest_size=8).digest() for unit in units)
    return np.fromiter((int.from_bytes(digest) % BUCKETS for digest in digests), dtype=np.intp)
