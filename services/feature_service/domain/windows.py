"""Windows: the values of features from the tiles that lie in rings, for many rows at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf, isfinite
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.feature_service.domain.cells import Cell, pack
from services.feature_service.domain.rings import Ring
from services.feature_service.domain.tails import Tail
from shared.events import Scalar
from shared.features.aggregations import ALL_TIME, COUNTS, Aggregation
from shared.features.bins import BINS, VALUES, rank_of
from shared.features.distinct import NONE, estimate
from shared.features.durations import seconds
from shared.features.layouts import HEAD, SPREAD, SUMS
from shared.features.tiles import Floats, begun, tile_of

Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
FeatureValue = Scalar | list[Scalar]
Mask = NDArray[np.bool_]
T = TypeVar("T")

_TILE, _COUNT, _LAST_TIME = range(len(HEAD))
_LAST, _FIRST_TIME, _FIRST, _TOTAL, _LOW, _HIGH = range(len(HEAD), len(SUMS))
_SPREAD_FIRST, _EXCESS, _SPREAD = range(SPREAD.index("first"), len(SPREAD))


@dataclass(frozen=True, slots=True)
class Column:
    """One feature's values and statuses, one per row, as Feast names them.

    NOT_FOUND: nothing is held of the entity. NULL_VALUE: its window is empty. OUTSIDE_MAX_AGE: the newest event is
    older than the view allows, or newer tiles have taken the place of some that the window asks for. Else a count is
    always PRESENT, and 0 where there is nothing, as in a training set.
    """

    values: list[FeatureValue]
    statuses: list[Status]


class Moments:
    """When the rows' windows end, in seconds, and the tiles that lie before; worked out once for all rings of a hop.

    Args:
        times: shape (rows,).
    """

    def __init__(self, times: Floats) -> None:
        self.are_one = len(times) > 0 and bool((times == times[0]).all())
        self.times: Floats = times[:1] if self.are_one else times
        """As many as there are different ones, if all are the same; else one per row."""
        self._tiles: dict[int, tuple[Floats, Floats]] = {}

    def tiles(self, hop_s: int) -> tuple[Floats, Floats]:
        """Of each moment the tile it lies in, and the first tile of which nothing comes before it: shape (…, 1)."""
        found = self._tiles.get(hop_s)
        if found is None:
            found = tile_of(self.times, hop_s)[:, None], begun(self.times, hop_s)[:, None]
            self._tiles[hop_s] = found
        return found


@dataclass(frozen=True, slots=True)
class _Window:
    """The cells of one window: those that are `inside`, of shape (moments, cells), their events, and what is lost.

    `count` and `outside` have the shape (moments,); `outside` is None where no moment has lost anything, and
    `has_events` says that every moment has events.
    """

    inside: Mask
    count: Floats
    outside: Mask | None
    has_events: bool


@dataclass(frozen=True, slots=True)
class RingValues:
    """What a store answered for one ring: the cells of several entities, and which of them each row asks for.

    A moment is an entity at a time. Rows that ask for the same one are computed once: mostly all rows ask for now, and
    there are as many moments as entities (3 airports for 50 flights). Cells are never gathered into the order of
    tiles: which are inside is a question of their numbers, and what does not depend on the window is asked once. With
    remembered plans that took 15 features of 50 rows from 1.15 to 0.28 ms, and of one row from 0.53 to 0.16.

    `cells` holds float64 and has shape (moments, cells, numbers), for the layout of bins with the counts of bins
    beside it, shape (moments, cells, BINS); `found` (moments,); `times` (moments,), or (1,) where it is the same for
    all; `row` is the moment of each row, None where they are the rows themselves. Of each moment `_tile` is the tile it
    lies in, shape (moments, 1), `_before` has the cells whose tile has begun before it, and `_later` the slots that
    hold later tiles, None where none does. `_torn` has the slots of tiles that a moment lies in, with events from it
    on, and `_entity` the entity of each moment, None where they are the entities themselves; `uncut` counts the tiles
    that could not be cut.
    """

    ring: Ring
    cells: Floats
    counts: NDArray[Any] | None
    found: list[bool]
    row: list[int] | None
    times: Floats
    _tile: Floats
    _before: Mask
    _later: Mask | None
    _torn: Mask | None
    _entity: Sequence[int] | None
    uncut: int = 0
    _windows: dict[str, _Window] = field(default_factory=dict)

    @classmethod
    def of(cls, ring: Ring, held: Sequence[bytes | None], row: Sequence[int], when: Moments | Floats) -> "RingValues":
        """Take up the bytes of a ring per entity (None: nothing held).

        Args:
            ring: the ring.
            held: of each entity the bytes.
            row: which entity each row asks for.
            when: when the rows' windows end, shape (rows,).
        """
        moments = when if isinstance(when, Moments) else Moments(when)
        size = ring.cells_bytes
        shape = (len(held), ring.cells)
        joined, width = _joined(held, size)
        counts = None
        if ring.layout.name == "bins":
            raw = np.frombuffer(joined, dtype=np.uint8).reshape(-1, width)[:, :size]
            raw = raw.reshape(*shape, ring.layout.cell_bytes)
            head = 8 * len(HEAD)
            counts = raw[..., head : head + 4 * BINS].copy().view("<u4")
            cells = raw[..., :head].copy().view("<f8")
        else:
            cells = np.frombuffer(joined, dtype="<f8").reshape(-1, width // 8)[:, : size // 8]
            cells = cells.reshape(*shape, ring.layout.cell_bytes // 8)
        found = [one is not None for one in held]
        entities: list[int] | None = list(row)
        entity = None
        if not moments.are_one:  # each row is a moment
            entity = entities
            cells, found = cells[entities], [found[one] for one in row]
            counts = None if counts is None else counts[entities]
            entities = None
        elif entities == list(range(len(held))):
            entities = None
        tile, limit = moments.tiles(ring.hop_s)
        before = (cells[..., _COUNT] > 0) & (cells[..., _TILE] < limit)
        later = torn = None
        passed = cells[:, : ring.slots, _LAST_TIME] >= moments.times[:, None]  # an empty cell's time is 0
        if np.count_nonzero(passed):
            later = cells[:, : ring.slots, _TILE] > tile
            torn = passed & ~later & before[:, : ring.slots]
        return cls(ring, cells, counts, found, entities, moments.times, tile, before, later, torn, entity)

    @property
    def is_torn(self) -> bool:
        """Whether some row's tile has events at its time or later, which `cut` takes out."""
        return self._torn is not None and bool(self._torn.any())

    def torn(self) -> list[int]:
        """The entities of which that is so."""
        if self._torn is None:
            return []
        moments = np.flatnonzero(self._torn.any(axis=1)).tolist()
        return sorted({self._entity_of(moment) for moment in moments})

    def cut(self, tails: Mapping[int, bytes | None]) -> "RingValues":
        """The same without what came at each row's time or later.

        Args:
            tails: by entity, of the same moment as the ring; of those that `torn` names.
        """
        if self._torn is None:
            return self
        cells, counts = self.cells.copy(), None if self.counts is None else self.counts.copy()
        known = {one: Tail.unpack(self.ring.layout, self.ring.hop_s, packed) for one, packed in tails.items()}
        uncut = 0
        for moment, slot in np.argwhere(self._torn).tolist():
            tile, count = cells[moment, slot, : _COUNT + 1].tolist()
            tail = known.get(self._entity_of(moment))
            cut = tail and tail.cut(tile, count, float(self.times[moment % len(self.times)]))
            uncut += not (cut and cut.is_exact)
            if cut and cut.cell is None:
                cells[moment, slot, _COUNT] = 0.0
            elif cut and cut.cell:
                self._put(cells[moment, slot], None if counts is None else counts[moment, slot], cut.cell)
        before = self._before & (cells[..., _COUNT] > 0)
        return replace(self, cells=cells, counts=counts, uncut=uncut, _before=before, _torn=None, _windows={})

    def _put(self, cell: Floats, bins: NDArray[Any] | None, new: Cell) -> None:
        packed = pack(self.ring.layout, new)
        cell[:] = np.frombuffer(packed, dtype="<f8", count=len(cell))
        if bins is not None:
            bins[:] = np.frombuffer(packed, dtype="<u4", count=BINS, offset=8 * len(HEAD))

    def _entity_of(self, moment: int) -> int:
        return moment if self._entity is None else self._entity[moment]

    def column(self, part: Aggregation, *, integer: bool, max_age_s: float) -> Column:
        """One feature's values; windows end at `times`, and an event at exactly that time is unseen.

        Args:
            part: an aggregation of this ring.
            integer: whether its values are whole numbers.
            max_age_s: how old the newest event of a window may be.
        """
        window = self._windows.get(part.window)
        if window is None:
            window = self._windows[part.window] = self._window(part)
        listed = _listed(_value(part, self, window), integer=integer)
        too_old = window.outside
        if part.kind not in COUNTS and isfinite(max_age_s):
            newest = np.where(window.inside, self.cells[..., _LAST_TIME], -inf).max(axis=1, initial=-inf)
            stale = (window.count > 0) & (self.times - newest > max_age_s)
            too_old = stale if too_old is None else too_old | stale
        known = None if part.kind in COUNTS or (window.has_events and part.kind != "std") else _known(part, window)
        if too_old is None and known is None:
            values = self._by_row(listed)
            return Column(values, ["PRESENT"] * len(values))
        statuses = self._statuses(known, too_old)
        listed = [v if s == "PRESENT" else None for v, s in zip(listed, statuses, strict=True)]
        return Column(self._by_row(listed), self._by_row(statuses))

    def _by_row(self, of_moments: list[T]) -> list[T]:
        return of_moments if self.row is None else [of_moments[moment] for moment in self.row]

    def _statuses(self, known: Mask | None, too_old: Mask | None) -> list[Status]:
        """None: known everywhere, or too old nowhere."""
        here = [True] * len(self.found) if known is None else known.tolist()
        old = [False] * len(self.found) if too_old is None else too_old.tolist()
        return [
            "OUTSIDE_MAX_AGE" if is_old else "PRESENT" if is_known else "NULL_VALUE" if is_held else "NOT_FOUND"
            for is_old, is_known, is_held in zip(old, here, self.found, strict=True)
        ]

    def _window(self, part: Aggregation) -> _Window:
        ring, tile = self.ring, self.cells[..., _TILE]
        lost: Mask | None = None
        if part.window == ALL_TIME:
            inside = self._before
            # A base that holds a later event has lost what was before.
            lost = (self.cells[:, -1, _COUNT] > 0) & (self.cells[:, -1, _LAST_TIME] >= self.times)
        else:
            tiles = _tiles(part.window, ring.hop_s)
            inside = self._before & (tile > self._tile - tiles)
            if ring.has_base:
                inside[:, -1] = False
            if self._later is not None:
                # A later tile has taken the slot of the one that it is a whole number of rounds ahead of.
                behind = np.mod(self._tile - tile[:, : ring.slots], ring.slots)
                lost = np.asarray((self._later & (behind < tiles)).any(axis=1))
        count = np.where(inside, self.cells[..., _COUNT], 0.0).sum(axis=1)
        return _Window(inside, count, lost if lost is not None and lost.any() else None, all(count.tolist()))


def _joined(held: Sequence[bytes | None], size: int) -> tuple[bytes, int]:
    """The rings behind one another, and the bytes that each takes: those of its cells at least."""
    there = [one for one in held if one is not None]
    lengths = set(map(len, there))
    if len(there) == len(held) and len(lengths) == 1 and (width := lengths.pop()) >= size:  # mostly: nothing is cut
        return b"".join(there), width
    # What lies behind the newest mark was never written; a ring whose last cells are empty is shorter than that.
    return b"".join([(one or b"")[:size].ljust(size, b"\0") for one in held]), size


@lru_cache(1024)  # reading the text takes a fifth of all that a window takes
def _tiles(window: str, hop_s: int) -> int:
    return seconds(window) // hop_s


def _known(part: Aggregation, window: _Window) -> Mask:
    """Where there are events enough for a value; a count needs none."""
    return window.count > (1 if part.kind == "std" else 0)


def _value(part: Aggregation, ring: RingValues, window: _Window) -> Any:
    """The values, one per moment and anything where they are not known."""
    if part.kind == "count":
        return window.count
    if part.kind == "distinct_count":
        return _distinct(ring, window)
    if part.kind == "quantile":
        return _quantile(part.q, ring, window)
    if part.kind == "last_n":
        return _last_n(part.n, ring, window)
    if part.kind == "std":
        return _std(ring.cells, window)
    return _of_sums(part, ring.cells, window)


def _of_sums(part: Aggregation, cells: Floats, window: _Window) -> Floats:
    count, inside = window.count, window.inside
    if part.kind in ("sum", "mean"):
        total: Floats = np.where(inside, cells[..., _TOTAL], 0.0).sum(axis=1)
        return total if part.kind == "sum" else total / np.maximum(count, 1.0)
    if part.kind == "min":
        low: Floats = np.where(inside, cells[..., _LOW], inf).min(axis=1, initial=inf)
        return np.where(count > 0, low, 0.0)
    if part.kind == "max":
        high: Floats = np.where(inside, cells[..., _HIGH], -inf).max(axis=1, initial=-inf)
        return np.where(count > 0, high, 0.0)
    moments = np.arange(len(cells))
    # No two cells hold events of the same moment: a moment lies in one tile, and a tile in one cell.
    if part.kind == "last":
        place = np.where(inside, cells[..., _LAST_TIME], -inf).argmax(axis=1)
    else:
        place = np.where(inside, cells[..., _FIRST_TIME], inf).argmin(axis=1)
    found: Floats = cells[moments, place, _LAST if part.kind == "last" else _FIRST]
    return found


def _std(cells: Floats, window: _Window) -> Floats:
    """From squared deviations within the cells, and those of the cells' own means from the window's.

    Means are differences from one of the window's values: far from zero, sums are rounded to more than values differ.
    """
    count, inside = window.count, window.inside
    some = cells[np.arange(len(cells)), inside.argmax(axis=1), _SPREAD_FIRST]
    counts = np.where(inside, cells[..., _COUNT], 0.0)
    apart = cells[..., _SPREAD_FIRST] - some[:, None] + cells[..., _EXCESS] / np.maximum(counts, 1.0)
    mean = (counts * apart).sum(axis=1) / np.maximum(count, 1.0)
    apart = apart - mean[:, None]
    spread = (np.where(inside, cells[..., _SPREAD], 0.0) + counts * apart * apart).sum(axis=1)
    deviation: Floats = np.sqrt(spread / np.maximum(count - 1.0, 1.0))
    return deviation


def _distinct(ring: RingValues, window: _Window) -> NDArray[np.int64]:
    """From the least different hashes of all cells together."""
    size = ring.ring.layout.size
    hashes = np.where(window.inside[..., None], ring.cells[..., len(HEAD) :], NONE)
    hashes = np.where(hashes > 0.0, hashes, NONE)  # a cell that was never written holds zeros
    hashes = hashes.reshape(len(hashes), ring.ring.cells * size)
    ordered = np.sort(hashes, axis=1)
    repeated = np.zeros(ordered.shape, dtype=np.bool_)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    least = np.sort(np.where(repeated, NONE, ordered), axis=1)[:, :size]
    if least.shape[1] < size:
        least = np.pad(least, ((0, 0), (0, size - least.shape[1])), constant_values=NONE)
    return estimate(least)


def _quantile(q: float, ring: RingValues, window: _Window) -> Floats:
    if ring.counts is None:
        raise TypeError("a quantile is read from a ring of bins")
    counts = np.where(window.inside[..., None], ring.counts, 0).sum(axis=1, dtype=np.int64)
    rank = rank_of(window.count, q)
    found: Floats = VALUES[np.minimum((np.cumsum(counts, axis=1) < rank[:, None]).sum(axis=1), BINS - 1)]
    return found


def _last_n(n: int, ring: RingValues, window: _Window) -> list[list[float]]:
    pairs = ring.cells[..., len(HEAD) :].reshape(*ring.cells.shape[:2], ring.ring.layout.size, 2)
    held = np.arange(pairs.shape[2]) < ring.cells[..., _COUNT, None]
    held &= window.inside[..., None]
    found = []
    for row, mask in zip(pairs, held, strict=True):
        times, values = row[mask].T
        order = np.lexsort((-values, -times))[:n]
        found.append(values[order].tolist())
    return found


def _listed(values: Any, *, integer: bool) -> list[FeatureValue]:
    if isinstance(values, list):
        return [[int(one) for one in row] if integer else row for row in values]
    listed: list[FeatureValue] = values.astype(np.int64).tolist() if integer else values.tolist()
    return listed
