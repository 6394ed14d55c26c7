"""Windows: the values of features from the tiles that lie in rings, for many rows and rings at once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np

from contender.contracts.values import Scalar
from contender.features import ALL_TIME, Aggregation, seconds
from contender.features.layouts import COUNT, LAST_TIME, TILE, Layout
from contender.features.tiles import Floats, begun, tile_of
from contender.features.windows import Cells, Mask, Window
from services.feature_service.domain.rings import Ring, StoredRing

Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]
FeatureValue = Scalar | list[Scalar]
T = TypeVar("T")

_WIDEST = 4
"""A group's largest ring has at most so many times the cells of its smallest: shorter rings are padded."""

_REMEMBERED, _LARGEST_REMEMBERED = 16, 256
"""Geometries that a group remembers, and most moments of one: for many rows it costs hardly anything."""


@dataclass(frozen=True, slots=True)
class Column:
    """One feature's values and statuses, one per row, as Feast names them.

    NOT_FOUND: the store lacks the entity. NULL_VALUE: its window is empty. OUTSIDE_MAX_AGE: the newest event is
    older than the view allows, or newer tiles have taken the slots of some that the window needs. Else a count is
    always PRESENT, and 0 without events, as in a training set. INVALID: the on-demand function fails on the row, or on
    what the row is computed from.
    """

    values: list[FeatureValue]
    statuses: list[Status]

    @classmethod
    def of(cls, values: Sequence[FeatureValue], invalid: Collection[int]) -> Self:
        """A computed column; rows that are `invalid` have no value."""
        statuses: list[Status] = ["NULL_VALUE" if value is None else "PRESENT" for value in values]
        column = cls([*values], statuses)
        for row in invalid:
            column.values[row], column.statuses[row] = None, "INVALID"
        return column

    @classmethod
    def combined(cls, feature: Aggregation, parts: Sequence["Column"]) -> "Column":
        """A feature from its parts; where it is null, the first part that is not present says why."""
        if not feature.of:
            return parts[0]
        values = feature.combine_lists([part.values for part in parts])
        statuses: list[Status] = []
        for value, *of_parts in zip(values, *(part.statuses for part in parts), strict=True):
            reasons = [status for status in of_parts if status != "PRESENT"]
            statuses.append("PRESENT" if value is not None else next(iter(reasons), "NULL_VALUE"))
        return cls(values, statuses)

    @property
    def invalid(self) -> frozenset[int]:
        """The rows that are INVALID."""
        if "INVALID" not in self.statuses:
            return frozenset()
        return frozenset(row for row, status in enumerate(self.statuses) if status == "INVALID")


class _Geometry(NamedTuple):
    """The windows of the moments of a batch, in arrays of shape (moments, 1).

    `reach[k]`: length in tiles of the k-th window (inf: all time), for the leading moments whose rings have more than k
    windows; `is_all[k]` marks all-time ones.
    """

    hop_s: Floats
    slots: Floats
    reach: Sequence[Floats]
    is_all: Sequence[Mask]


class RingGroup:
    """Rings of one layout that are computed as one array, and the windows that are read from each.

    Windows are computed in rounds: each takes the next window of every ring that has one left.

    Args:
        rings: of one layout, those with most windows first.
        windows: the distinct windows of each ring, as text.
    """

    def __init__(self, rings: Sequence[Ring], windows: Sequence[Sequence[str]]) -> None:
        self.rings = rings
        self.layout: Layout = rings[0].layout
        self.slots = max(ring.slots for ring in rings)
        self.has_base = any(ring.has_base for ring in rings)
        self.cells = self.slots + self.has_base
        self.bytes = self.cells * self.layout.cell_bytes
        """Bytes of an entity's ring, padded."""

        self.window_rounds = [
            {window: window_round for window_round, window in enumerate(of_ring)} for of_ring in windows
        ]
        self._reach = [
            [np.inf if window == ALL_TIME else float(seconds(window) // ring.hop_s) for window in of_ring]
            for ring, of_ring in zip(rings, windows, strict=True)
        ]
        self._gap = [bytes((self.slots - ring.slots) * self.layout.cell_bytes) for ring in rings]
        self._no_base = bytes(self.layout.cell_bytes if self.has_base else 0)
        self._small = lru_cache(_REMEMBERED)(self._geometry)

    @classmethod
    def all_of(cls, windows: Mapping[Ring, Sequence[str]]) -> list[Self]:
        """Put rings with their windows into as few groups as possible."""
        groups: list[list[Ring]] = []
        for ring in sorted(windows, key=lambda ring: (ring.layout.name, ring.layout.size, ring.cells)):
            smallest = groups[-1][0] if groups else None
            if smallest and smallest.layout == ring.layout and ring.cells <= _WIDEST * smallest.cells:
                groups[-1].append(ring)
            else:
                groups.append([ring])
        for rings in groups:
            rings.sort(key=lambda ring: -len(windows[ring]))
        return [cls(rings, [windows[ring] for ring in rings]) for rings in groups]

    def joined(self, held: Sequence[Sequence[StoredRing | None]]) -> bytes:
        """The bytes of all rings, entity by entity: the slots, padded, and the base."""
        parts: list[bytes] = []
        for ring, gap, of_ring in zip(self.rings, self._gap, held, strict=True):
            size, slots = ring.cells_bytes, ring.slots * self.layout.cell_bytes
            no_base = b"" if ring.has_base else self._no_base
            for stored in of_ring:
                # A ring whose last cells were never written is shorter.
                whole = b"" if stored is None else stored.packed
                whole = whole if len(whole) >= size else whole.ljust(size, b"\0")
                if ring.has_base and gap:
                    parts += (whole[:slots], gap, whole[slots:size])
                else:
                    parts += (whole[:size], gap, no_base)
        return b"".join(parts)

    def geometry(self, moments: tuple[int, ...]) -> _Geometry:
        """The geometry of a batch with so many moments of each ring."""
        return (self._small if sum(moments) <= _LARGEST_REMEMBERED else self._geometry)(moments)

    def _geometry(self, moments: tuple[int, ...]) -> _Geometry:
        def spread(values: Sequence[float]) -> Floats:
            return np.repeat(np.array(values, dtype=np.float64), moments[: len(values)])[:, None]

        reach = []
        for window_round in range(len(self._reach[0])):
            having = [of_ring for of_ring in self._reach if window_round < len(of_ring)]
            reach.append(spread([of_ring[window_round] for of_ring in having]))
        return _Geometry(
            spread([ring.hop_s for ring in self.rings]),
            spread([ring.slots for ring in self.rings]),
            reach,
            [np.isinf(tiles) for tiles in reach],
        )


class HeldRing(NamedTuple):
    """A ring of each entity, as a store holds it, and the number of the entity that each row asks for."""

    entities: list[StoredRing | None]
    row: Sequence[int]


@dataclass(frozen=True, slots=True)
class RingBatch:
    """The cells of several rings, of several entities each, at the times that rows ask for.

    A moment is a ring of an entity at a time. Rows that share a moment are computed once: mostly all rows ask for now,
    so a ring has as many moments as entities (3 airports for 50 flights). Cells are never sorted by tile: their tile's
    number decides which are inside a window. The number of numpy calls takes the time, hardly the size of their arrays:
    so all rings of one layout lie in one array.

    If all times are the same, `_is_by_entity` is true and a ring has one moment per entity, else one per row. `_times`
    has the time of each moment, shape (moments, 1), or (1, 1) if it is the same for all. `_tile` is the tile that it
    lies in, shape (moments, 1), and `_tiles` has the tiles of its cells, shape (moments, cells). `_before` marks the
    cells whose tile began before it, and `_later` the slots that hold later tiles, None if there are none. Per ring
    `_spans` has its moments, and `_rows` the moment of each row, None if these are the rows themselves.
    """

    group: RingGroup
    cells: Cells

    _held: Sequence[HeldRing]
    _geometry: _Geometry
    _spans: list[slice]
    _rows: list[list[int] | None]
    _is_by_entity: bool
    _times: Floats
    _tile: Floats
    _tiles: Floats
    _before: Mask
    _later: Mask | None
    _windows: list[Window] = field(default_factory=list)

    @classmethod
    def of(cls, group: RingGroup, held: Sequence[HeldRing], times: Floats) -> "RingBatch":
        """The batch of a store's answer.

        Args:
            group: the rings.
            held: the entities of each ring.
            times: when each row's windows end, in seconds, shape (rows,).
        """
        numbers, counts_by_entry = group.layout.arrays(group.joined([ring.entities for ring in held]), group.cells)
        rows: list[list[int] | None]
        is_by_entity = len(times) > 0 and bool((times == times[0]).all())
        if is_by_entity:
            times = times[:1, None]
            counts = [len(ring.entities) for ring in held]
            rows = [None if _is_identity(ring) else list(ring.row) for ring in held]
        else:  # each row is a moment
            starts = accumulate((len(ring.entities) for ring in held[:-1]), initial=0)
            chosen = [start + number for start, ring in zip(starts, held, strict=True) for number in ring.row]
            numbers, counts_by_entry = numbers[chosen], counts_by_entry[chosen]
            counts = [len(times)] * len(held)
            rows = [None] * len(held)
            times = np.tile(times, len(held))[:, None]
        geometry = group.geometry(tuple(counts))
        tile = tile_of(times, geometry.hop_s)
        tiles = np.ascontiguousarray(numbers[..., TILE])  # read often, and 72 bytes apart in `numbers`
        before = (numbers[..., COUNT] > 0) & (tiles < begun(tile, times, geometry.hop_s))
        later = tiles[:, : group.slots] > tile  # an empty cell's tile is 0
        return cls(
            group=group,
            cells=Cells(group.layout, numbers, counts_by_entry),
            _held=held,
            _geometry=geometry,
            _spans=[slice(*ends) for ends in pairwise(accumulate(counts, initial=0))],
            _rows=rows,
            _is_by_entity=is_by_entity,
            _times=times,
            _tile=tile,
            _tiles=tiles,
            _before=before,
            _later=later if np.count_nonzero(later) else None,
        )

    def _is_held(self, index: int) -> list[bool]:
        """Whether the store has the entity of each moment of a ring."""
        is_held = [stored is not None for stored in self._held[index].entities]
        return is_held if self._is_by_entity else [is_held[number] for number in self._held[index].row]

    def column(self, index: int, part: Aggregation, *, integer: bool, max_age_s: float) -> Column:
        """One feature's values; windows end at the rows' times, and an event at exactly that time is unseen.

        Args:
            index: of the ring.
            part: an aggregation of it.
            integer: whether its values are whole numbers.
            max_age_s: how old the newest event of a window may be.
        """
        if not self._windows:
            self._windows.extend(map(self._window, range(len(self._geometry.reach))))
        window = self._windows[self.group.window_rounds[index][part.window]]
        span, row = self._spans[index], self._rows[index]
        listed = part.online(window, span)
        if integer and not part.never_null:
            listed = _whole(listed)
        too_old = None if window.outside is None else window.outside[span]
        is_known = None
        if not part.never_null:
            if max_age_s < np.inf:
                stale = window.stale(self._times, max_age_s)[span]
                too_old = stale if too_old is None else too_old | stale
            if not window.has_events or part.least_events > 1:
                is_known = [count >= part.least_events for count in window.count[span]]
        if too_old is None and (is_known is None or all(is_known)):
            values = _by(row, listed)
            return Column(values, ["PRESENT"] * len(values))
        statuses = _statuses(self._is_held(index), is_known, too_old)
        listed = [value if status == "PRESENT" else None for value, status in zip(listed, statuses, strict=True)]
        return Column(_by(row, listed), _by(row, statuses))

    def _window(self, window_round: int) -> Window:
        reach, is_all = self._geometry.reach[window_round], self._geometry.is_all[window_round]
        having, slots = len(reach), self.group.slots
        tile, tiles = self._tile[:having], self._tiles[:having]
        inside = self._before[:having] & (tiles > tile - reach)
        lost: Mask = np.zeros(having, dtype=np.bool_)
        if self._later is not None:
            # A later tile has taken the slot of the tile that lies a whole number of rings behind it.
            behind = np.mod(tile - tiles[:, :slots], self._geometry.slots[:having])
            lost |= (self._later[:having] & (behind < np.where(is_all, 0.0, reach))).any(axis=1)
        if self.group.has_base:
            inside[:, -1] &= is_all[:, 0]
            # A base that holds a later event has lost its earlier state.
            base = self.cells.numbers[:having, -1]
            lost |= is_all[:, 0] & (base[:, COUNT] > 0) & (base[:, LAST_TIME] >= self._times[:having, 0])
        return Window.of(self.cells, inside, lost if lost.any() else None)


def _is_identity(held: HeldRing) -> bool:
    return len(held.row) == len(held.entities) and list(held.row) == list(range(len(held.row)))


def _by(row: Sequence[int] | None, of_moments: list[T]) -> list[T]:
    return of_moments if row is None else [of_moments[moment] for moment in row]


def _statuses(is_held: Sequence[bool], is_known: Sequence[bool] | None, too_old: Mask | None) -> list[Status]:
    """The status of each moment. `is_known` None: all are known; `too_old` None: none is."""
    here = [True] * len(is_held) if is_known is None else is_known
    old = [False] * len(is_held) if too_old is None else too_old.tolist()
    return [
        "OUTSIDE_MAX_AGE" if is_old else "PRESENT" if is_here else "NULL_VALUE" if has_events else "NOT_FOUND"
        for is_old, is_here, has_events in zip(old, here, is_held, strict=True)
    ]


def _whole(values: list[Any]) -> list[FeatureValue]:
    """Whole numbers as int: cells hold them as float64."""
    return [[int(entry) for entry in value] if isinstance(value, list) else int(value) for value in values]
