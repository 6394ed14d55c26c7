"""Use cases of online features: answer for entities, take events in, merge frames. Knows no HTTP and no Kafka."""

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from services.feature_service.domain.rings import Ring, Rings, entity_text
from services.feature_service.domain.tallies import Tally, by_source, tally
from services.feature_service.domain.validation import Fault, fault
from services.feature_service.domain.windows import Column, RingValues
from services.feature_service.store.protocol import FeatureStore, FramePosition
from shared.clock import Clock
from shared.events import EntityEvent, EntityEventFrame
from shared.features.catalogue import Catalogue, Feature
from shared.features.tiles import Floats
from shared.ids import frame_id_of, new_frame_id
from shared.journal import Journal
from shared.topics import ENTITY_EVENTS, cloud_event_headers

Key = str | int
_NAMED_REASONS = 3


@dataclass(frozen=True, slots=True)
class OnlineFeatures:
    """Answers what the features of entities are at given times."""

    catalogue: Catalogue
    rings: Rings
    store: FeatureStore

    async def values(
        self, features: Sequence[Feature], entities: Mapping[str, Sequence[Key]], times: Floats
    ) -> list[Column]:
        """The features' values and statuses, with one MGET for them all.

        Args:
            features: which ones.
            entities: by join key one value per row; every feature's join key is there.
            times: when each row's windows end, in seconds, shape (rows,).
        """
        by_ring: dict[Ring, list[int]] = defaultdict(list)
        for position, feature in enumerate(features):
            by_ring[self.rings.by_column[feature.view.name, feature.aggregation.column]].append(position)
        numbered = {key: _numbered(values) for key, values in entities.items()}
        keys = [ring.key(entity) for ring in by_ring for entity in numbered[ring.join_key][0]]
        held = await self.store.read(keys)
        answers: dict[int, Column] = {}
        start = 0
        for ring, positions in by_ring.items():
            distinct, row = numbered[ring.join_key]
            values = RingValues.of(ring, held[start : start + len(distinct)], row, times)
            start += len(distinct)
            columns = values.columns([features[at].aggregation for at in positions], integer=self._integer(ring))
            answers.update(zip(positions, columns, strict=True))
        return [answers[position] for position in range(len(features))]

    def _integer(self, ring: Ring) -> bool:
        return ring.column is not None and self.catalogue.sources[ring.source].schema[ring.column] is int


class RejectedEventError(Exception):
    """An event of a call does not fit; none of the call was taken."""

    def __init__(self, row: int, what: Fault) -> None:
        super().__init__(f"events[{row}].{what.field} {what.message}")
        self.row = row
        self.fault = what


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes events in: one call becomes one frame in the journal."""

    catalogue: Catalogue
    journal: Journal
    clock: Clock
    partitions: int
    future_s: float

    async def accept(self, events: Sequence[EntityEvent], request_id: str = "") -> list[str]:
        """Journal the events and return the frame ids; they are on disk then.

        The same events with the same request id get the same frame id, so a call that is repeated counts once.

        Raises:
            RejectedEventError: an event does not fit its source; nothing is stored.
            JournalFull: Kafka has not taken events for a long time.
        """
        now = self.clock.now()
        for row, event in enumerate(events):
            if what := fault(event, self.catalogue, now + self.future_s):
                raise RejectedEventError(row, what)
        if not events:
            return []
        value = ENTITY_EVENTS.encode(EntityEventFrame(list(events)))
        frame_id = new_frame_id(now)
        if request_id:
            frame_id = frame_id_of(hashlib.sha256(request_id.encode() + b"\0" + value).digest())
        partition = zlib.crc32(frame_id.encode()) % self.partitions
        headers = cloud_event_headers(ENTITY_EVENTS, frame_id)
        self.journal.append(ENTITY_EVENTS.name, partition, None, headers, value)
        await self.journal.flush()
        return [frame_id]


class ReadFrame(NamedTuple):
    """A frame as it was read from the topic."""

    position: FramePosition
    events: Sequence[EntityEvent]


class Misfits(NamedTuple):
    """Events of one frame that were left out, with where the frame lies and what is wrong with them."""

    position: FramePosition
    events: EntityEventFrame
    reason: str


class Merged(NamedTuple):
    """What came of some frames: events merged, those of duplicated frames, those too late, and those left out."""

    events: int
    duplicate: int
    late: int
    misfits: list[Misfits]


@dataclass(frozen=True, slots=True)
class Merging:
    """Merges frames into the store, each once however often it is read."""

    catalogue: Catalogue
    rings: Rings
    store: FeatureStore
    clock: Clock
    future_s: float

    async def merge(self, frames: Sequence[ReadFrame]) -> Merged:
        """Merge frames, in the order of their offsets per partition.

        Raises:
            StoreUnavailableError: part of them may be merged; merging the same frames again is right.
        """
        fresh = await self.store.claim([frame.position for frame in frames])
        latest = self.clock.now() + self.future_s
        misfits: list[Misfits] = []
        tallies: dict[Ring, dict[str, list[Tally]]] = defaultdict(lambda: defaultdict(list))
        merged = 0
        for position, events in (frame for frame, is_fresh in zip(frames, fresh, strict=True) if is_fresh):
            faults = [fault(event, self.catalogue, latest) for event in events]
            fitting = [event for event, what in zip(events, faults, strict=True) if what is None]
            if len(fitting) < len(events):
                misfits.append(_misfits(position, events, faults))
            merged += len(fitting)
            for source, of_source in by_source(fitting).items():
                for ring in self.rings.by_source[source]:
                    for entity, one in tally(ring, position.partition, position.offset, of_source).items():
                        tallies[ring][entity].append(one)
        late = sum([await self.store.merge(ring, by_entity) for ring, by_entity in tallies.items()])
        duplicate = sum(len(frame.events) for frame, is_fresh in zip(frames, fresh, strict=True) if not is_fresh)
        return Merged(merged, duplicate, late, misfits)

    async def settle(self, positions: Sequence[FramePosition]) -> None:
        """Note frames as applied and wait until they are on disk: after that their offsets may be committed."""
        offsets: dict[int, int] = {}
        for position in positions:
            offsets[position.partition] = max(position.offset, offsets.get(position.partition, -1))
        await self.store.note_applied(offsets)
        await self.store.persist()


def decode_frame(value: bytes) -> list[EntityEvent]:
    """The events of a record: a frame, or one plain event.

    Raises:
        msgspec.DecodeError: neither.
    """
    try:
        return ENTITY_EVENTS.decode(value).events
    except msgspec.ValidationError as no_frame:
        try:
            return [msgspec.json.decode(value, type=EntityEvent)]
        except msgspec.ValidationError as no_event:
            raise msgspec.ValidationError(f"neither a frame ({no_frame}) nor an event ({no_event})") from no_event


def _misfits(position: FramePosition, events: Sequence[EntityEvent], faults: Sequence[Fault | None]) -> Misfits:
    wrong = [(event, row, what) for row, (event, what) in enumerate(zip(events, faults, strict=True)) if what]
    reasons = [f"events[{row}].{what.field} {what.message}" for _, row, what in wrong]
    more = f"; and {len(reasons) - _NAMED_REASONS} more" if len(reasons) > _NAMED_REASONS else ""
    frame = EntityEventFrame([event for event, _, _ in wrong])
    return Misfits(position, frame, "; ".join(reasons[:_NAMED_REASONS]) + more)


def _numbered(values: Sequence[Key]) -> tuple[list[str], list[int]]:
    """The distinct entities, and which of them each row names."""
    numbers: dict[str, int] = {}
    row = [numbers.setdefault(entity_text(value), len(numbers)) for value in values]
    return list(numbers), row
