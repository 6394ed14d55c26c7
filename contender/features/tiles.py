"""The grid of time that windows are cut from: the one place where a time becomes a tile."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def tile_of(times: ArrayLike, hop_s: ArrayLike) -> Floats:
    """Number of the tile [n * hop, (n + 1) * hop) that each time lies in; the shape of `times` and `hop_s` together.

    Floor division is exact where a quotient rounded to float64 would lift a time just before a boundary over it.
    """
    tiles: Floats = np.floor_divide(np.asarray(times, dtype=np.float64), hop_s)
    return tiles


def begun(tiles: Floats, times: Floats, hop_s: Floats) -> Floats:
    """Number of the first tile that begins at or after each time.

    Args:
        tiles: those that the times lie in, as `tile_of` returns them.
        times: in seconds.
        hop_s: width of the tiles.
    """
    first: Floats = tiles + (tiles * hop_s != times)
    return first
