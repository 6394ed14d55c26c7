"""Windows: the values of features from the tiles that lie in rings, for many rows at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.feature_service.domain.rings import COUNT, HIGH, LAST, LOW, SPREAD, TILE, TOTAL, Ring
from shared.features.aggregations import Aggregation
from shared.features.tiles import Floats, on_boundary, tile_of

Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
FeatureValue = int | float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One feature's values and statuses, one per row, as Feast names them.

    NOT_FOUND: nothing is held of the entity. NULL_VALUE: its window is empty. OUTSIDE_MAX_AGE: newer tiles have taken
    the place of some that the window asks for. Else a count is always PRESENT, and 0 where there is nothing, as in a
    training set.
    """

    values: list[FeatureValue]
    statuses: list[Status]


@dataclass(frozen=True, slots=True)
class RingValues:
    """What a store answered for one ring: the cells of several entities, and which of them each row asks for.

    `cells` has shape (entities, slots, 8), `found` (entities,), `row` (rows,), `times` (rows,).
    """

    ring: Ring
    cells: Floats
    found: NDArray[np.bool_]
    row: NDArray[np.int64]
    times: Floats

    @classmethod
    def of(cls, ring: Ring, held: Sequence[bytes | None], row: Sequence[int], times: Floats) -> "RingValues":
        """Take up the bytes of a ring per entity (None: nothing held)."""
        size, blank = ring.cells_bytes, bytes(ring.cells_bytes)
        joined = b"".join([blank if one is None else one[:size] for one in held])
        cells = np.frombuffer(joined, dtype="<f8").reshape(len(held), ring.slots, 8)
        found = np.array([one is not None for one in held], dtype=np.bool_)
        return cls(ring, cells, found, np.asarray(row, dtype=np.int64), times)

    def columns(self, features: Sequence[Aggregation], *, integer: bool) -> list[Column]:
        """The features' values; windows end at `times`, and an event at exactly that time is unseen.

        Args:
            features: aggregations of the ring's column, or counts.
            integer: whether the column holds whole numbers, which sums, extremes and last values then are too.
        """
        longest = max(feature.window_s for feature in features) // self.ring.hop_s
        current = tile_of(self.times, self.ring.hop_s)
        wanted = current[:, None] - np.arange(longest)  # shape (rows, tiles), the newest tile first
        slots = np.mod(wanted, self.ring.slots).astype(np.int64)
        cells = self.cells[self.row[:, None], slots]
        held = cells[..., COUNT] > 0
        inside = held & (cells[..., TILE] == wanted)
        inside[:, 0] &= ~on_boundary(self.times, self.ring.hop_s)
        overwritten = held & (cells[..., TILE] > wanted)
        present = self.found[self.row]
        return [
            _column(
                feature,
                cells[:, :tiles],
                inside[:, :tiles],
                np.any(overwritten[:, :tiles], axis=1, keepdims=True)[:, 0],
                present,
                integer=integer,
            )
            for feature in features
            if (tiles := feature.window_s // self.ring.hop_s)
        ]


def _column(
    feature: Aggregation,
    cells: Floats,
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    present: NDArray[np.bool_],
    *,
    integer: bool,
) -> Column:
    count = np.where(inside, cells[..., COUNT], 0.0).sum(axis=1)
    if feature.kind == "count":
        values, known = count, np.ones(len(count), dtype=np.bool_)
    else:
        values, known = _aggregate(feature, cells, inside, count)
    whole = feature.kind == "count" or (integer and feature.kind not in ("mean", "std"))
    statuses: list[Status] = [
        "OUTSIDE_MAX_AGE" if old else "PRESENT" if known_here else "NULL_VALUE" if here else "NOT_FOUND"
        for old, known_here, here in zip(outside.tolist(), known.tolist(), present.tolist(), strict=True)
    ]
    numbers = values.astype(np.int64).tolist() if whole else values.tolist()
    return Column([n if s == "PRESENT" else None for n, s in zip(numbers, statuses, strict=True)], statuses)


def _aggregate(
    feature: Aggregation, cells: Floats, inside: NDArray[np.bool_], count: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """The values, shape (rows,), 0 where they are not known; and where they are."""
    known = count > 0
    some = np.maximum(count, 1.0)
    total = np.where(inside, cells[..., TOTAL], 0.0).sum(axis=1)
    if feature.kind == "sum":
        return total, known
    if feature.kind == "mean":
        return total / some, known
    if feature.kind == "std":
        known = count > 1
        return np.sqrt(_spread(cells, inside, total / some) / np.maximum(count - 1.0, 1.0)) * known, known
    if feature.kind == "last":
        newest = inside.argmax(axis=1)
        return np.where(known, cells[np.arange(len(cells)), newest, LAST], 0.0), known
    if feature.kind == "min":
        return np.where(known, np.where(inside, cells[..., LOW], np.inf).min(axis=1, initial=np.inf), 0.0), known
    return np.where(known, np.where(inside, cells[..., HIGH], -np.inf).max(axis=1, initial=-np.inf), 0.0), known


def _spread(cells: Floats, inside: NDArray[np.bool_], mean: Floats) -> Floats:
    """Squared deviations from the window's mean: those within the tiles, and those of the tiles' own means."""
    count = np.where(inside, cells[..., COUNT], 0.0)
    apart = cells[..., TOTAL] / np.maximum(count, 1.0) - mean[:, None]
    spread: Floats = (np.where(inside, cells[..., SPREAD], 0.0) + count * apart * apart).sum(axis=1)
    return spread
