"""Values: what an aggregation is, from those of a ring's cells that lie inside a window, for many moments at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from contender.features.aggregations import Aggregation, Kind
from contender.features.bins import BINS, VALUES, rank_of
from contender.features.distinct import NONE, estimate
from contender.features.layouts import HEAD, SPREAD, SUMS, Layout
from contender.features.tiles import Floats

Mask = NDArray[np.bool_]

_COUNT = HEAD.index("count")
_LAST_TIME, _LAST, _FIRST_TIME, _FIRST, _TOTAL, _LOW, _HIGH = range(SUMS.index("last_time"), len(SUMS))
_SPREAD_FIRST, _EXCESS, _SPREAD = range(SPREAD.index("first"), len(SPREAD))


class Cells(NamedTuple):
    """Cells of one layout.

    `numbers` are float64 of shape (moments, cells, numbers); of the layout of bins only the head, and `bins` has the
    counts of each bin, of shape (moments, cells, BINS).
    """

    layout: Layout
    numbers: Floats
    bins: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """The cells of one window: those that are `inside`, of shape (moments, cells), their sums, and what is lost.

    `sums` adds up the numbers of cells, whether that makes sense or not, and has shape (moments, numbers); `count` has
    the events of each moment. `outside` is None where no moment has lost anything, else it has shape (moments,);
    `has_events` says that every moment has events.
    """

    cells: Cells
    inside: Mask
    sums: Floats
    count: list[int]
    outside: Mask | None
    has_events: bool
    _known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: Cells, inside: Mask, outside: Mask | None) -> Self:
        """A window over the first moments of some cells."""
        own = Cells(cells.layout, cells.numbers[: len(inside)], cells.bins[: len(inside)])
        # One product adds up all numbers of a cell, in half the time that two of them take one by one.
        added = own.numbers[..., : len(SUMS) if cells.layout.name == "sums" else len(HEAD)]
        sums = np.matmul(inside[:, None, :].astype(np.float64), added)[:, 0, :]
        count = sums[:, _COUNT].astype(np.int64).tolist()
        return cls(own, inside, sums, count, outside, all(count))

    def stale(self, times: Floats, max_age_s: float) -> Mask:
        """Where the newest event is more than an age before the times, shape (moments, 1) or (1, 1)."""
        newest = self._known.get("newest")
        if newest is None:
            newest = np.maximum.reduce(np.where(self.inside, self.cells.numbers[..., _LAST_TIME], -inf), axis=1)
            self._known["newest"] = newest
        too_old: Mask = (newest > -inf) & (times[: len(newest), 0] - newest > max_age_s)
        return too_old

    def of_cells(self, kind: Kind) -> list[float]:
        """What needs no more than the cells, of all moments: worked out once."""
        found: list[float] | None = self._known.get(kind)
        if found is None:
            found = self._known[kind] = _FROM_CELLS[kind](self.cells.numbers, self).tolist()
        return found


def values_of(part: Aggregation, window: Window, span: slice) -> list[Any]:
    """The values of some moments, anything where there are no events, or for a deviation not two; counts are ints.

    Args:
        part: what is asked for.
        window: the cells, and which of them count.
        span: which moments.
    """
    if part.kind in _FROM_CELLS:
        return window.of_cells(part.kind)[span]
    return _OTHERS[part.kind](part, window, span)


def _count(_: Aggregation, window: Window, span: slice) -> list[int]:
    return window.count[span]


def _distinct(_: Aggregation, window: Window, span: slice) -> list[int]:
    """From the least different hashes of all cells together."""
    numbers, size = window.cells.numbers, window.cells.layout.size
    hashes = np.where(window.inside[span, :, None], numbers[span, :, len(HEAD) :], NONE)
    hashes = np.where(hashes > 0.0, hashes, NONE)  # a cell that was never written holds zeros
    hashes = hashes.reshape(len(hashes), numbers.shape[1] * size)
    ordered = np.sort(hashes, axis=1)
    repeated = np.zeros(ordered.shape, dtype=np.bool_)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    least = np.sort(np.where(repeated, NONE, ordered), axis=1)[:, :size]
    if least.shape[1] < size:
        least = np.pad(least, ((0, 0), (0, size - least.shape[1])), constant_values=NONE)
    found: list[int] = estimate(least).tolist()
    return found


def _quantile(part: Aggregation, window: Window, span: slice) -> list[float]:
    counts = np.where(window.inside[span, :, None], window.cells.bins[span], 0).sum(axis=1, dtype=np.int64)
    below = (np.cumsum(counts, axis=1) < rank_of(window.count[span], part.q)[:, None]).sum(axis=1)
    found: list[float] = VALUES[np.minimum(below, BINS - 1)].tolist()
    return found


def _last_n(part: Aggregation, window: Window, span: slice) -> list[list[float]]:
    numbers, size = window.cells.numbers[span], window.cells.layout.size
    pairs = numbers[..., len(HEAD) :].reshape(*numbers.shape[:2], size, 2)
    held = np.arange(size) < numbers[..., _COUNT, None]
    held &= window.inside[span, :, None]
    found = []
    for row, mask in zip(pairs, held, strict=True):
        times, values = row[mask].T
        order = np.lexsort((-values, -times))[: part.n]
        found.append(values[order].tolist())
    return found


_OTHERS: Mapping[Kind, Callable[[Aggregation, Window, slice], list[Any]]] = {
    "count": _count,
    "distinct_count": _distinct,
    "quantile": _quantile,
    "last_n": _last_n,
}


def _sum(_: Floats, window: Window) -> Floats:
    return window.sums[:, _TOTAL]


def _mean(_: Floats, window: Window) -> Floats:
    return window.sums[:, _TOTAL] / np.maximum(window.sums[:, _COUNT], 1.0)


def _min(cells: Floats, window: Window) -> Floats:
    low: Floats = np.minimum.reduce(np.where(window.inside, cells[..., _LOW], inf), axis=1)
    return low if window.has_events else np.where(np.isfinite(low), low, 0.0)


def _max(cells: Floats, window: Window) -> Floats:
    high: Floats = np.maximum.reduce(np.where(window.inside, cells[..., _HIGH], -inf), axis=1)
    return high if window.has_events else np.where(np.isfinite(high), high, 0.0)


# No two cells hold events of the same moment: a moment lies in one tile, and a tile in one cell.
def _first(cells: Floats, window: Window) -> Floats:
    place = np.where(window.inside, cells[..., _FIRST_TIME], inf).argmin(axis=1)
    found: Floats = cells[np.arange(len(cells)), place, _FIRST]
    return found


def _last(cells: Floats, window: Window) -> Floats:
    place = np.where(window.inside, cells[..., _LAST_TIME], -inf).argmax(axis=1)
    found: Floats = cells[np.arange(len(cells)), place, _LAST]
    return found


def _std(cells: Floats, window: Window) -> Floats:
    """From squared deviations within the cells, and those of the cells' own means from the window's.

    Means are differences from one of the window's values: far from zero, sums are rounded to more than values differ.
    """
    inside, count = window.inside, window.sums[:, _COUNT]
    some = cells[np.arange(len(cells)), inside.argmax(axis=1), _SPREAD_FIRST]
    counts = np.where(inside, cells[..., _COUNT], 0.0)
    apart = cells[..., _SPREAD_FIRST] - some[:, None] + cells[..., _EXCESS] / np.maximum(counts, 1.0)
    mean = (counts * apart).sum(axis=1) / np.maximum(count, 1.0)
    apart = apart - mean[:, None]
    spread = (np.where(inside, cells[..., _SPREAD], 0.0) + counts * apart * apart).sum(axis=1)
    deviation: Floats = np.sqrt(spread / np.maximum(count - 1.0, 1.0))
    return deviation


_FROM_CELLS: Mapping[Kind, Callable[[Floats, Window], Floats]] = {
    "sum": _sum,
    "mean": _mean,
    "min": _min,
    "max": _max,
    "first": _first,
    "last": _last,
    "std": _std,
}
