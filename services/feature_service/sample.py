"""The sample of a version of a view: some of its entities, and their events.

Entities are sampled by a hash of their key, so that every run looks at the same ones and several processes agree. A
view without an entity has one row, which every sample includes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from contender.contracts.values import Scalar
from contender.features import ColumnType, FeatureView
from contender.features.offline.tables import TIME, TYPES
from services.feature_service.domain import HISTORY, entity_text, fits
from services.feature_service.frames import FramePosition
from services.feature_service.history import HistoryCutover
from shared.events import EntityEvent

_HASHES = 2**32


class SampledEvent(NamedTuple):
    """An event of a sampled entity, and the frame that it came in."""

    entity: str
    time: float
    values: Mapping[str, Scalar]
    partition: int
    offset: int


@dataclass
class Sample:
    """The sampled entities of one version of a view, and their events.

    Args:
        view: the view.
        label: its version, as `view@number`.
        share: of the entities.
        opens_s: no window of the check reaches events before this time; they only show that an entity exists.
        cutover: the time up to which events come from files.
        entities: join keys by the entity's text.
        events: in the order in which they were read.
    """

    view: FeatureView
    label: str
    share: float
    opens_s: float
    cutover: HistoryCutover | None
    entities: dict[str, tuple[Scalar, ...]] = field(default_factory=dict)
    events: list[SampledEvent] = field(default_factory=list)
    is_closed: bool = False
    """Whether new entities are left out."""
    keyed: tuple[tuple[str, ColumnType], ...] = field(init=False)
    """The join keys with their types."""

    def __post_init__(self) -> None:
        self.keyed = tuple((name, self.view.source.schema[name]) for name in self.view.join_keys)
        if not self.view.join_keys:
            self.entities[""] = ()

    def take(self, position: FramePosition, event: EntityEvent) -> bool:
        """Keep a valid event of the view's source if it belongs to the sample, and return whether it does."""
        if self.cutover is not None and (event.time <= self.cutover.until_s) != (position.partition == HISTORY):
            return False  # up to the cutover only files count, and after it only the topic
        if not fits(event.values, self.keyed):
            return False  # another version reads its schema
        keys = tuple(event.values[name] for name in self.view.join_keys)
        entity = entity_text(keys) if keys else ""
        if entity not in self.entities:
            if self.is_closed or not self._has(entity):
                return False
            self.entities[entity] = keys
        if event.time >= self.opens_s:
            self.events.append(SampledEvent(entity, event.time, event.values, position.partition, position.offset))
        return True

    def rows(self, at: float) -> pl.DataFrame:
        """One row per entity, for a training set as of a time."""
        schema = {key: TYPES[self.view.source.schema[key]] for key in self.view.join_keys}
        columns = {key: [keys[index] for keys in self.entities.values()] for index, key in enumerate(schema)}
        times = pl.Series(TIME, [at] * len(self.entities), dtype=pl.Float64)
        return pl.DataFrame(columns, schema=schema).with_columns(times) if schema else pl.DataFrame(times)

    def table(self, events: Iterable[SampledEvent]) -> pl.DataFrame:
        """Events as a training set reads them."""
        source = self.view.source
        schema = {source.timestamp: pl.Float64, **{name: TYPES[kind] for name, kind in source.schema.items()}}
        rows = [
            {source.timestamp: event.time, **{name: event.values[name] for name, _ in self.columns(event)}}
            for event in events
        ]
        return pl.DataFrame(rows, schema=schema)

    def columns(self, event: SampledEvent) -> list[tuple[str, ColumnType]]:
        """The source's columns that an event has: all, unless it follows a former schema."""
        return [column for column in self.view.source.schema.items() if fits(event.values, [column])]

    def _has(self, entity: str) -> bool:
        digest = hashlib.blake2b(entity.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        return int.from_bytes(digest) < self.share * _HASHES
