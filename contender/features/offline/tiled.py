"""Features of views: events are read by source and join keys, a bucket of entities at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from contender.features import Aggregation, Condition, EventSource, FeatureView, TrainingSetError
from contender.features.offline.history import History, MaxAge, RowQuery, Values
from contender.features.offline.tables import SourceTable, TrainingRows, time_column
from contender.features.spans import Indices, Spans
from contender.features.tiles import tile_of

_ROW = "row"


@dataclass(frozen=True, slots=True)
class Tiled:
    """One feature of a view, and the column of the training set it goes to."""

    column: str
    view: FeatureView
    feature: Aggregation


@dataclass(frozen=True, slots=True)
class SourceGroup:
    """Features of one source and the same join keys, whose events are read together."""

    source: EventSource
    join_keys: tuple[str, ...]
    features: list[Tiled]

    @classmethod
    def all_of(cls, features: Iterable[Tiled]) -> "list[SourceGroup]":
        """Features in as few groups as there can be."""
        groups: list[SourceGroup] = []
        for feature in features:
            view = feature.view
            group = next((g for g in groups if g.source == view.source and g.join_keys == view.join_keys), None)
            if group is None:
                groups.append(group := cls(view.source, view.join_keys, []))
            group.features.append(feature)
        return groups

    @property
    def parts(self) -> Iterator[tuple[FeatureView, Aggregation]]:
        """Everything that is read from events."""
        yield from ((tiled.view, part) for tiled in self.features for part in tiled.feature.parts)

    @property
    def columns(self) -> list[str]:
        """The source's columns that are needed: values, and what filters look at."""
        values = [part.column for _, part in self.parts if part.column is not None]
        looked_at = [name for _, part in self.parts if part.where is not None for name, _ in part.where.columns]
        return list(dict.fromkeys([*values, *looked_at]))


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads the events of a group and computes its features for rows.

    Args:
        group: the features.
        opened: the events.
        rows: the rows.
        as_known: whether a row sees only events that were ingested by its time.
        memory_rows: how many events may be in memory at once, unless a single entity has more.
    """

    group: SourceGroup
    opened: SourceTable
    rows: TrainingRows
    as_known: bool
    memory_rows: int

    def features(self) -> pl.DataFrame:
        """The group's columns, in the order of the rows.

        Raises:
            TrainingSetError: events are not what the definitions ask for.
        """
        events, size = self._events()
        entities, codes = _entities(self.rows.keys(self.group.join_keys), len(self.rows.times))
        buckets = min(-(-size // self.memory_rows), max(1, entities.height)) or 1
        parts = []
        for bucket in range(buckets):
            own = np.flatnonzero(codes % buckets == bucket)
            chosen = entities.filter(pl.col("code") % buckets == bucket).with_columns(pl.col("code") // buckets)
            own_events = _with_codes(events, chosen).collect(engine="streaming")
            # Nobody's number lies beyond those of the bucket's entities, whichever bucket it falls into.
            query = RowQuery(np.minimum(codes[own] // buckets, chosen.height), self.rows.times[own])
            table = _Bucket(own_events, chosen.height, query).table(self.group)
            parts.append(table.with_columns(pl.Series(_ROW, own)))
        return pl.concat(parts).sort(_ROW).drop(_ROW)

    def _events(self) -> tuple[pl.LazyFrame, int]:
        """The checked events under the names that are used here, and how many there are."""
        source, opened = self.group.source, self.opened
        times = {"time": time_column(opened, source)}
        if self.as_known:
            times["ingested"] = _ingested(opened, source)
        events = opened.frame.select(
            *(opened.key(name).alias(f"key {n}") for n, name in enumerate(self.group.join_keys)),
            *(opened.seconds(name).alias(alias) for alias, name in times.items()),
            *(opened.column(name, source.schema[name]).alias(f"column {name}") for name in self.group.columns),
        )
        size = opened.check(times.values(), [*self.group.join_keys, *self.group.columns])
        return events.filter(pl.col("time").is_between(*self._reach(), closed="left")), size

    def _reach(self) -> tuple[float, float]:
        """Begin and end of the events that any row sees; the end is excluded."""
        if not len(self.rows.times):
            return 0.0, 0.0
        first = self.rows.times.min()
        opens = [(tile_of(first, view.hop_s) + 1) * view.hop_s - part.window_s for view, part in self.group.parts]
        return float(min(opens)), float(self.rows.times.max())


class _Order(NamedTuple):
    """Which events a history has, and what they are sorted by after entity and time."""

    where: Condition | None
    column: str | None
    hashed: bool


@dataclass(frozen=True, slots=True)
class _Bucket:
    """The events of some entities, and the rows that ask for them."""

    events: pl.DataFrame
    entities: int
    query: RowQuery

    def table(self, group: SourceGroup) -> pl.DataFrame:
        """The features of the group, one row per row. One history at a time is held."""
        values: dict[tuple[int, int], Values] = {}
        for order, readers in _by_order(group).items():
            history = self._history(order)
            spans: dict[tuple[int, float], Spans] = {}
            for index, view, part in readers:
                window = (view.hop_s, part.window_s)
                if window not in spans:
                    spans[window] = history.spans(self.query, *window)
                age = MaxAge(self.query.time, view.max_age_s)
                values[index] = Values.of(part, history, spans[window], age)
        series = []
        for number, tiled in enumerate(group.features):
            parts = [values[number, part] for part in range(len(tiled.feature.parts))]
            column = Values.combined(tiled.feature, parts)
            series.append(column.series(tiled.column, integer=tiled.view.is_integer(tiled.feature)))
        return pl.DataFrame(series)

    def _history(self, order: _Order) -> History:
        events = self.events
        if order.where is not None:
            looked_at = {name: pl.col(f"column {name}") for name, _ in order.where.columns}
            events = events.filter(order.where.holds(looked_at))
        return History.of(events, order.column, self.entities, hashed=order.hashed)


_Reader = tuple[tuple[int, int], FeatureView, Aggregation]  # number of the feature and of its part, view, part


def _by_order(group: SourceGroup) -> dict[_Order, list[_Reader]]:
    """The parts of features by the history they are read from; counts ride along with a column where there is one."""
    readers: list[_Reader] = [
        ((number, index), tiled.view, part)
        for number, tiled in enumerate(group.features)
        for index, part in enumerate(tiled.feature.parts)
    ]
    readers_by_order: dict[_Order, list[_Reader]] = {}
    for reader in sorted(readers, key=lambda reader: reader[2].column is None):
        part = reader[2]
        order = _Order(part.where, part.column, not part.needs_numbers)
        if part.column is None:
            order = next((known for known in readers_by_order if known.where == part.where), order)
        readers_by_order.setdefault(order, []).append(reader)
    return readers_by_order


def _ingested(opened: SourceTable, source: EventSource) -> str:
    if not source.ingested_at:
        raise TrainingSetError(
            f"source {source.name!r} does not say when events became known, which as_known asks for: name the column "
            "with EventSource(ingested_at=)"
        )
    if source.ingested_at not in opened.schema:
        raise TrainingSetError(
            f"{opened.where} have no column {source.ingested_at!r} with the time of ingestion, which as_known asks for"
        )
    return source.ingested_at


def _entities(keys: pl.DataFrame, rows: int) -> tuple[pl.DataFrame, Indices]:
    """The different entities with numbers in `code`, and the number of each row; one more than the last is nobody."""
    if not keys.width:
        return pl.DataFrame({"code": [0]}), np.zeros(rows, dtype=np.int64)
    entities = keys.unique().drop_nulls().with_row_index("code").with_columns(pl.col("code").cast(pl.Int64))
    codes = keys.join(entities, on=keys.columns, how="left", maintain_order="left")["code"]
    return entities, codes.fill_null(entities.height).to_numpy()


def _with_codes(events: pl.LazyFrame, entities: pl.DataFrame) -> pl.LazyFrame:
    """The events of these entities, with their numbers instead of their keys."""
    keys = [name for name in entities.columns if name != "code"]
    if not keys:
        return events.with_columns(pl.lit(0, dtype=pl.Int64).alias("code"))
    return events.join(entities.lazy(), on=keys, how="inner").drop(keys)
