"""Bins of values for quantiles: each is 10 % wider than the one before, so a value is known to within 5 %.

Source: Masson, Rim, Lee, DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees, VLDB
2019, with a fixed range instead of a growing one, so that a tile has a fixed size.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
"""What stands for a value of each bin, shape (BINS,)."""


def bin_of(values: ArrayLike) -> NDArray[np.int64]:
    """The bin of each value; the shape of `values`."""
    bins: NDArray[np.int64] = np.searchsorted(EDGES, np.asarray(values, dtype=np.float64), side="right")
    return bins


def rank_of(count: ArrayLike, q: float) -> NDArray[np.int64]:
    """Which of `count` values in ascending order, counted from 1, is the quantile q: the least with share q below."""
    rank: NDArray[np.int64] = np.maximum(1, np.ceil(np.asarray(count) * q - 1e-9)).astype(np.int64)
    return rank
