"""Events of one column, sorted, and which of them each row of a training set sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contender.features import Aggregation
from contender.features.layouts.distinct import hashes_of
from contender.features.spans import Indices, Spans, values_at
from contender.features.tiles import Floats, tile_of

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RowQuery:
    """Rows of one bucket: the number of each one's entity, the number after the last for nobody, and its time.

    Both have shape (rows,).
    """

    code: Indices
    time: Floats


@dataclass(frozen=True, slots=True)
class History:
    """Events in the order of entity, time and value; arrays of shape (events,).

    The events of entity i are [starts[i], starts[i + 1]); `starts` has shape (entities + 2,) and ends with a slice
    without events, that of nobody.
    """

    starts: Indices
    time: Floats
    value: Floats
    ingested: Floats | None

    @classmethod
    def of(cls, events: pl.DataFrame, column: str | None, entities: int, *, hashed: bool) -> Self:
        """Sort events by a column.

        Args:
            events: columns `code`, `time`, perhaps `ingested`, and `column name` for every column.
            column: which one to keep; none for bare events.
            entities: how many there are.
            hashed: whether to keep hashes of the values, which only show whether two are equal.
        """
        kept = ["code", "time", *(["ingested"] if "ingested" in events.columns else [])]
        if column is None or hashed:
            value = pl.lit(0.0) if column is None else _hashes(events[f"column {column}"])
            table = events.select(*kept, value.alias("value")).sort("code", "time")
        else:
            # -0.0 becomes 0.0, as online.
            value = pl.col(f"column {column}").cast(pl.Float64) + 0.0
            table = events.select(*kept, value.alias("value")).sort("code", "time", "value")
        starts = np.searchsorted(table["code"].to_numpy(), np.arange(entities + 2)).astype(np.int64)
        ingested = table["ingested"].to_numpy() if "ingested" in kept else None
        return cls(starts, table["time"].to_numpy(), table["value"].to_numpy(), ingested)

    def spans(self, query: RowQuery, hop_s: int, window_s: float) -> Spans:
        """The events that each row sees in a window: those in [floor(t/h) h - W + h, t), or all before t."""
        begin, end = self.starts[query.code], self.starts[query.code + 1]
        end = self._first_at(begin, end, query.time)
        if np.isfinite(window_s):
            opens = (tile_of(query.time, hop_s) + 1) * hop_s - window_s
            begin = self._first_at(begin, end, opens)
        spans = Spans.of_rows(begin, end)
        return spans if self.ingested is None else spans.known(self.ingested, query.time)

    def _first_at(self, low: Indices, high: Indices, times: Floats) -> Indices:
        """The first event of each slice [low, high) that is not before a time; `high` where all are."""
        low, high = low.copy(), high.copy()
        open_ = np.flatnonzero(low < high)
        while len(open_):
            middle = (low[open_] + high[open_]) >> 1
            before = self.time[middle] < times[open_]
            low[open_[before]] = middle[before] + 1
            high[open_[~before]] = middle[~before]
            open_ = open_[low[open_] < high[open_]]
        return low


@dataclass(frozen=True, slots=True)
class Values:
    """A feature's values, shape (rows,), and which are null. Lists have shape (rows, entries), NaN beyond their end."""

    values: Floats
    missing: Mask

    @classmethod
    def of(cls, feature: Aggregation, history: History, spans: Spans, age: "MaxAge") -> Self:
        """A feature of the events that rows see; `combined` is for those computed from others."""
        with np.errstate(all="ignore"):
            values = feature.offline(history.value, spans)
        if feature.never_null:
            return cls(values, np.zeros(spans.rows, dtype=np.bool_))
        return cls(values, (spans.count < feature.least_events) | age.exceeded(history, spans))

    @classmethod
    def combined(cls, feature: Aggregation, parts: Sequence["Values"]) -> "Values":
        """A feature from its parts."""
        if not feature.of:
            return parts[0]
        values = feature.combine([np.where(part.missing, np.nan, part.values) for part in parts])
        return cls(values, np.isnan(values))

    def series(self, name: str, *, integer: bool) -> pl.Series:
        """As a column: Int64 or Float64, or a list of them."""
        kind = np.int64 if integer else np.float64
        if self.values.ndim == 1:
            return pl.Series(name, np.where(self.missing, 0.0, self.values).astype(kind)).set(
                pl.Series(self.missing), None
            )
        inside = ~np.isnan(self.values) & ~self.missing[:, None]
        lengths = inside.sum(axis=1)
        flat = pl.DataFrame(
            {"row": np.repeat(np.arange(len(lengths)), lengths), name: self.values[inside].astype(kind)}
        )
        lists = flat.group_by("row", maintain_order=True).agg(name)
        rows = pl.DataFrame({"row": np.arange(len(lengths))})
        return rows.join(lists, on="row", how="left", maintain_order="left")[name]


@dataclass(frozen=True, slots=True)
class MaxAge:
    """How old the newest event of a window may be at each row's time, shape (rows,)."""

    times: Floats
    max_age_s: float

    def exceeded(self, history: History, spans: Spans) -> Mask:
        """Whether it is older; shape (rows,)."""
        if not np.isfinite(self.max_age_s):
            return np.zeros(spans.rows, dtype=np.bool_)
        newest = values_at(history.time, spans.latest(1)[:, 0])
        return self.times - newest > self.max_age_s


def _hashes(column: pl.Series) -> pl.Expr:
    """A hash per value; each different value is hashed once."""
    different = column.unique()
    known = pl.DataFrame({"value": different, "hash": hashes_of(different.to_list())})
    hashed = column.to_frame("value").join(known, on="value", how="left", maintain_order="left")["hash"]
    return pl.lit(hashed)
