"""Training sets: the value of every feature at every row's own time, from a history of events.

The same tiles as online, merged in the same order: events are sorted by entity, time and value; within each tile run
running aggregates, whose last row is the whole tile. A row takes the whole tiles of its window and, from the tile its
time lies in, the running aggregate of the last event before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.features.aggregations import Aggregation
from shared.features.definitions import ColumnType, EventSource, FeatureView
from shared.features.errors import TrainingSetError
from shared.features.tiles import Floats, on_boundary, tile_of

TIME = "time"
Indices = NDArray[np.int64]
_INTEGER_KINDS = ("sum", "min", "max", "last")


def build_training_set(
    views: Sequence[FeatureView], rows: pl.DataFrame, events: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """Put the features of `views` beside each row, as they stood at the row's time.

    Args:
        views: whose features to compute.
        rows: join keys of the views' entities and a column `time`, seconds since the Unix epoch, in any order.
        events: per source name a table with the source's columns and its timestamp in seconds (or `time`), in any
            order. An event at a row's very time is not seen by it.

    Returns:
        `rows` with a column `view__feature` per feature; null where online the value would be null.

    Raises:
        TrainingSetError: a table or column is missing, mistyped, or holds nulls or NaN.
    """
    times = _numbers(rows, TIME, "rows")
    columns: list[pl.Series] = []
    for view in views:
        key = view.entity.join_key
        if key not in rows.columns:
            raise TrainingSetError(f"rows have no column {key!r}, the join key of view {view.name!r}")
        if view.source.name not in events:
            raise TrainingSetError(f"there are no events of source {view.source.name!r} for view {view.name!r}")
        table = events[view.source.name]
        codes, row_codes = _entity_codes(_column(table, key, f"events of {view.source.name!r}"), rows[key])
        for column in dict.fromkeys(feature.column for feature in view.features):
            features = [feature for feature in view.features if feature.column == column]
            history = _History.of(view, table, codes, column)
            columns += history.values(view, features, row_codes, times)
    in_order = {series.name: series for series in columns}
    return rows.with_columns(in_order[f"{view.name}__{one.name}"] for view in views for one in view.features)


@dataclass(frozen=True, slots=True)
class _History:
    """Events sorted by entity, time and value, with aggregates running within each tile; all of shape (events,)."""

    code: Indices
    tile: Floats
    time: Floats
    value: Floats
    count: Floats
    total: Floats
    spread: Floats
    low: Floats
    high: Floats
    ends: Indices  # the last event of each tile that has any, shape (tiles,)

    @classmethod
    def of(cls, view: FeatureView, table: pl.DataFrame, codes: Indices, column: str | None) -> Self:
        where = f"events of {view.source.name!r}"
        time = _numbers(table, _time_column(table, view.source), where)
        value = np.zeros(len(table))
        if column is not None:
            value = _numbers(table, column, where, view.source.schema[column])
        order = np.lexsort((value, time, codes))
        code, time, value = codes[order], time[order], value[order] + 0.0  # -0.0 becomes 0.0, as online
        tile = tile_of(time, view.hop_s)
        starts = np.ones(len(code), dtype=np.bool_)
        starts[1:] = (code[1:] != code[:-1]) | (tile[1:] != tile[:-1])
        ends = np.flatnonzero(np.append(starts[1:], [True] if len(code) else []))
        running = _running(starts, value)
        return cls(code, tile, time, value, *running, ends)

    def values(
        self, view: FeatureView, features: Sequence[Aggregation], codes: Indices, times: Floats
    ) -> list[pl.Series]:
        """The features of one column at each row, shape (rows,) each."""
        current = tile_of(times, view.hop_s)
        # Rows and events are found by (entity, time): the number of events before each row in that order.
        before = _search((self.code, self.time), (codes, times))
        partial = before - 1
        in_tile = (before > 0) & ~on_boundary(times, view.hop_s)
        in_tile &= (self.code[partial] == codes) & (self.tile[partial] == current) if len(self.code) else False
        tile_keys = (self.code[self.ends], self.tile[self.ends])
        past_end = _search(tile_keys, (codes, current))
        found: list[pl.Series] = []
        for window_s in dict.fromkeys(feature.window_s for feature in features):
            first = _search(tile_keys, (codes, current - window_s // view.hop_s + 1))
            merged = _Merged.nothing(len(codes))
            for step in range(int((past_end - first).max(initial=0))):
                inside = np.flatnonzero(first + step < past_end)
                merged.take(inside, self, self.ends[first[inside] + step])
            inside = np.flatnonzero(in_tile)
            merged.take(inside, self, partial[inside])
            found += [
                _series(f"{view.name}__{one.name}", merged, one, view.source)
                for one in features
                if one.window_s == window_s
            ]
        return found


@dataclass(frozen=True, slots=True)
class _Merged:
    """Aggregates of each row's window, shape (rows,) each."""

    count: Floats
    total: Floats
    spread: Floats
    low: Floats
    high: Floats
    last: Floats

    @classmethod
    def nothing(cls, rows: int) -> Self:
        zeros = np.zeros((4, rows))
        return cls(zeros[0], zeros[1], zeros[2], np.full(rows, inf), np.full(rows, -inf), zeros[3])

    def take(self, rows: Indices, history: _History, at: Indices) -> None:
        """Merge into `rows` the running aggregates at the events `at`, which are later than what is merged already.

        Sums of squared deviations merge as in Chan, Golub, LeVeque, Updating formulae, 1979: no cancellation.
        """
        count, total = history.count[at], history.total[at]
        held = self.count[rows]
        apart = total / count - np.divide(self.total[rows], held, out=np.zeros(len(rows)), where=held > 0)
        self.spread[rows] += history.spread[at] + apart * apart * held * count / (held + count)
        self.count[rows] += count
        self.total[rows] += total
        self.low[rows] = np.minimum(self.low[rows], history.low[at])
        self.high[rows] = np.maximum(self.high[rows], history.high[at])
        self.last[rows] = history.value[at]


def _running(starts: NDArray[np.bool_], value: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Count, sum, sum of squared deviations, least and greatest so far, from each start on (Welford, 1962)."""
    frame = pl.DataFrame({"segment": np.cumsum(starts), "value": value}).with_columns(
        count=pl.int_range(1, pl.len() + 1).over("segment").cast(pl.Float64),
        total=pl.col("value").cum_sum().over("segment"),
        low=pl.col("value").cum_min().over("segment"),
        high=pl.col("value").cum_max().over("segment"),
    )
    count, total = frame["count"].to_numpy(), frame["total"].to_numpy()
    mean = total / count
    before = np.where(starts, value, np.roll(mean, 1))
    steps = pl.Series("steps", (value - before) * (value - mean))
    spread = frame.with_columns(steps).select(pl.col("steps").cum_sum().over("segment"))["steps"].to_numpy()
    return count, total, spread, frame["low"].to_numpy(), frame["high"].to_numpy()


def _search(keys: tuple[Indices, Floats], wanted: tuple[Indices, Floats]) -> Indices:
    """How many of the sorted keys (entity, number) are less than each wanted one."""
    size = len(keys[0])
    codes, numbers = np.concatenate([keys[0], wanted[0]]), np.concatenate([keys[1], wanted[1]])
    is_key = np.arange(len(codes)) < size
    order = np.lexsort((is_key, numbers, codes))  # a wanted one stands before its equals
    found = np.empty(len(codes), dtype=np.int64)
    found[order] = np.cumsum(is_key[order])
    return found[size:]


def _series(name: str, merged: _Merged, feature: Aggregation, source: EventSource) -> pl.Series:
    empty = merged.count == 0
    if feature.kind == "count":
        return pl.Series(name, merged.count.astype(np.int64))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "sum": merged.total,
            "mean": merged.total / merged.count,
            "min": merged.low,
            "max": merged.high,
            "std": np.sqrt(merged.spread / (merged.count - 1)),
            "last": merged.last,
        }[feature.kind]
    missing = merged.count < 2 if feature.kind == "std" else empty  # noqa: PLR2004 - a deviation takes two
    integer = feature.kind in _INTEGER_KINDS and feature.column is not None and source.schema[feature.column] is int
    series = pl.Series(name, np.where(missing, 0.0, values).astype(np.int64 if integer else np.float64))
    return series.set(pl.Series(missing), None)


def _entity_codes(events: pl.Series, rows: pl.Series) -> tuple[Indices, Indices]:
    """Each entity as a number, the same in both tables; keys are compared as text, as online."""
    both = pl.concat([events.cast(pl.String).rename("key"), rows.cast(pl.String).rename("key")])
    codes: Indices = both.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    return codes[: len(events)], codes[len(events) :]


def _time_column(table: pl.DataFrame, source: EventSource) -> str:
    return source.timestamp if source.timestamp in table.columns else TIME


def _column(table: pl.DataFrame, name: str, where: str) -> pl.Series:
    if name not in table.columns:
        raise TrainingSetError(f"{where} have no column {name!r}")
    if table[name].null_count():
        raise TrainingSetError(f"{where}: column {name!r} holds {table[name].null_count()} nulls; leave those rows out")
    return table[name]


def _numbers(table: pl.DataFrame, name: str, where: str, kind: ColumnType = float) -> Floats:
    column = _column(table, name, where)
    if not (column.dtype.is_integer() if kind is int else column.dtype.is_numeric()):
        raise TrainingSetError(f"{where}: column {name!r} is {column.dtype}, not {kind.__name__}")
    numbers: Floats = column.to_numpy().astype(np.float64)
    if not np.isfinite(numbers).all():
        raise TrainingSetError(f"{where}: column {name!r} holds NaN or infinity; leave those rows out")
    return numbers
