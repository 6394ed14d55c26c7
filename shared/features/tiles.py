"""The grid of time that windows are cut from: the one place where a time becomes a tile."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def tile_of(times: ArrayLike, hop_s: int) -> Floats:
    """Number of the tile [n * hop, (n + 1) * hop) that each time lies in; the shape of `times`.

    Floor division is exact where a quotient rounded to float64 would lift a time just before a boundary over it.
    """
    tiles: Floats = np.floor_divide(np.asarray(times, dtype=np.float64), hop_s)
    return tiles


def on_boundary(times: ArrayLike, hop_s: int) -> NDArray[np.bool_]:
    """Whether each time is the first moment of a tile, so that nothing of the tile comes before it."""
    moments = np.asarray(times, dtype=np.float64)
    first: NDArray[np.bool_] = tile_of(moments, hop_s) * hop_s == moments
    return first


def begun(times: ArrayLike, hop_s: int) -> Floats:
    """Number of the first tile of which nothing comes before each time: it lies in the tile before, or begins one."""
    moments = np.asarray(times, dtype=np.float64)
    tiles = tile_of(moments, hop_s)
    first: Floats = tiles + (tiles * hop_s != moments)
    return first
