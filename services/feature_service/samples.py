"""What a check keeps of all events: those of sampled entities, by view, and where they lie in the topic.

Entities are sampled by a hash of their key, so that every run looks at the same ones and several processes agree. A
view without an entity has one row, which is always looked at.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from contender.contracts.values import Scalar
from contender.features import Catalogue, ColumnType, EventSource, FeatureView, TrainingSetError
from contender.features.offline.tables import TIME, TYPES
from contender.features.tiles import tile_of
from services.feature_service.definitions import DefinitionsSnapshot, history_of
from services.feature_service.domain import HISTORY, entity_text, fault, fits
from services.feature_service.handlers import ReadFrame
from services.feature_service.history import HistoryChangedError, HistoryCutover, frames
from services.feature_service.store import FramePosition
from shared.events import EntityEvent
from shared.logs import logger

_HASHES = 2**32


class Placed(NamedTuple):
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
        opens_s: events before this time are in no window that is asked for; they only tell that an entity is there.
        cutover: up to when events come from files.
        entities: join keys by the entity's text.
        events: in the order in which they were read.
    """

    view: FeatureView
    label: str
    share: float
    opens_s: float
    cutover: HistoryCutover | None
    entities: dict[str, tuple[Scalar, ...]] = field(default_factory=dict)
    events: list[Placed] = field(default_factory=list)
    is_closed: bool = False
    """Whether entities that were not seen before are left out."""
    keyed: tuple[tuple[str, ColumnType], ...] = field(init=False)
    """The join keys with their types."""

    def __post_init__(self) -> None:
        self.keyed = tuple((name, self.view.source.schema[name]) for name in self.view.join_keys)
        if not self.view.join_keys:
            self.entities[""] = ()

    def take(self, position: FramePosition, event: EntityEvent) -> bool:
        """Keep a valid event of the view's source if its entity is sampled; whether it is."""
        if self.cutover is not None and (event.time <= self.cutover.until_s) != (position.partition == HISTORY):
            return False  # up to the cutover only files count, and after it only the topic
        if not fits(event.values, self.keyed):
            return False  # of another schema, which another version reads
        keys = tuple(event.values[name] for name in self.view.join_keys)
        entity = entity_text(keys) if keys else ""
        if entity not in self.entities:
            if self.is_closed or not self._has(entity):
                return False
            self.entities[entity] = keys
        if event.time >= self.opens_s:
            self.events.append(Placed(entity, event.time, event.values, position.partition, position.offset))
        return True

    def rows(self, at: float) -> pl.DataFrame:
        """One row per entity, for a training set as of a time."""
        schema = {key: TYPES[self.view.source.schema[key]] for key in self.view.join_keys}
        columns = {key: [keys[place] for keys in self.entities.values()] for place, key in enumerate(schema)}
        times = pl.Series(TIME, [at] * len(self.entities), dtype=pl.Float64)
        return pl.DataFrame(columns, schema=schema).with_columns(times) if schema else pl.DataFrame(times)

    def table(self, events: Iterable[Placed]) -> pl.DataFrame:
        """Events as a training set takes them."""
        source = self.view.source
        schema = {source.timestamp: pl.Float64, **{name: TYPES[kind] for name, kind in source.schema.items()}}
        rows = [
            {source.timestamp: one.time, **{name: one.values[name] for name, _ in self.columns(one)}} for one in events
        ]
        return pl.DataFrame(rows, schema=schema)

    def columns(self, event: Placed) -> list[tuple[str, ColumnType]]:
        """Those of the source's columns that an event has: all, unless it is of a former schema."""
        return [column for column in self.view.source.schema.items() if fits(event.values, [column])]

    def _has(self, entity: str) -> bool:
        digest = hashlib.blake2b(entity.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        return int.from_bytes(digest) < self.share * _HASHES


@dataclass
class Samples:
    """The samples of all versions of all views, taken in one reading.

    Args:
        catalogue: the definitions.
        now: when the check began, in seconds.
        future_s: how far ahead of its sending an event may be.
        views: one sample per version of a view.
    """

    catalogue: Catalogue
    now: float
    future_s: float
    views: list[Sample]
    _seen: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, current: DefinitionsSnapshot, *, share: float, at: float, now: float, future_s: float) -> "Samples":
        """Nothing read yet; values are asked for as of `at` or later."""
        catalogue = current.catalogue
        views = []
        for label, view in catalogue.kept.items():
            if not isinstance(view, FeatureView):
                continue
            reaches_s = max(part.window_s for one in view.aggregations for part in one.parts)
            opens_s = boundary(at, view.hop_s) - reaches_s
            views.append(Sample(view, label, share, opens_s, current.registered.cutovers.get(label)))
        return cls(catalogue, now, future_s, views)

    def take_history(self) -> None:
        """Read the files of the sources that have some, each once.

        A former version whose files are not there any more as it was filled from them is left out: nobody can tell.

        Raises:
            HistoryChangedError: the files of today's definitions have changed since the cutover was decided.
            TrainingSetError: they can't be read.
        """
        read: list[tuple[EventSource, HistoryCutover, list[Sample]]] = []
        for sample in self.views:
            if sample.cutover is not None:
                source = history_of(self.catalogue, sample.view)
                alike = next(
                    (group for known, cutover, group in read if (known, cutover) == (source, sample.cutover)), None
                )
                if alike is None:
                    read.append((source, sample.cutover, [sample]))
                else:
                    alike.append(sample)
        for source, cutover, group in read:
            try:
                for number, events in frames(source, cutover):
                    for event in events:
                        for sample in group:
                            sample.take(FramePosition("", HISTORY, number), event)
            except (HistoryChangedError, TrainingSetError) as error:
                if any(self.catalogue.today.get(sample.view.name) == sample.label for sample in group):
                    raise
                left_out = [sample.label for sample in group]
                self.views = [sample for sample in self.views if sample.label not in left_out]
                logger(__name__).warning("former versions are not checked", versions=left_out, error=str(error))

    def take(self, read: Iterable[ReadFrame]) -> None:
        """Take up frames of the topic, each once: of those that hold sampled events the ids are remembered."""
        by_source: dict[str, list[Sample]] = defaultdict(list)
        for sample in self.views:
            by_source[sample.view.source.name].append(sample)
        for position, events, sent_at in read:
            latest = min(self.now, sent_at) + self.future_s
            if position.frame_id in self._seen:
                continue
            kept = False
            for event in events:
                samples = by_source.get(event.source)
                if samples and fault(event, self.catalogue, latest) is None:
                    for sample in samples:
                        kept |= sample.take(position, event)
            if kept and position.frame_id:
                self._seen.add(position.frame_id)

    def close(self) -> None:
        """From now on take only events of the entities that are there."""
        for sample in self.views:
            sample.is_closed = True


def boundary(time: float, hop_s: int) -> float:
    """The beginning of the tile that a time lies in."""
    return float(tile_of(time, hop_s)) * hop_s
