"""Use cases of events: add them, merge their frames. Knows no HTTP and no Kafka."""

import asyncio
import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.feature_service.definitions import Definitions
from services.feature_service.domain import HISTORY, Fault, Ring, Tally, by_source, fault, fits, tally
from services.feature_service.errors import InvalidEventError, UnknownSourceError
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.ownership import PartitionOwnership, RingFilter
from services.feature_service.store import FeatureStore
from shared.clock import Clock
from shared.events import EntityEvent, EntityEventFrame
from shared.ids import frame_id_of, new_frame_id
from shared.journal import Journal, JournalRecord
from shared.topics import ENTITY_EVENTS, cloud_event_headers, split

_NAMED_REASONS = 3


@dataclass(frozen=True, slots=True)
class Intake:
    """Adds events: one call becomes one frame in the journal, or several where one would grow large."""

    definitions: Definitions
    journal: Journal
    clock: Clock
    partitions: int
    future_s: float

    async def accept(self, events: Sequence[EntityEvent], request_id: str = "") -> list[str]:
        """Journal the events and return the ids of their frames, once they are on disk.

        The same events with the same request id get the same frame ids, so a repeated call counts once.

        Raises:
            UnknownSourceError, InvalidEventError: an event does not fit its source; nothing is stored.
            RecordTooLarge: an event is larger than a record may be; nothing is stored.
            JournalFull: Kafka has not taken events for a long time, or the disk is full.
        """
        now = self.clock.now()
        for row, event in enumerate(events):
            if misfit := fault(event, self.definitions.current.catalogue, now + self.future_s):
                kind = UnknownSourceError if misfit.field == "source" else InvalidEventError
                raise kind.at(f"events[{row}].{misfit.field}", misfit.message)
        if not events:
            return []
        values = [part.encoded for part in split(events, _encoded)]
        if request_id:
            frame_ids = [_repeatable_id(request_id, number, value) for number, value in enumerate(values)]
        else:
            frame_ids = [new_frame_id(now) for _ in values]
        self.journal.append_all(
            [self._record(frame_id, value) for frame_id, value in zip(frame_ids, values, strict=True)]
        )
        await self.journal.flush()
        return frame_ids

    def _record(self, frame_id: str, value: bytes) -> JournalRecord:
        partition = zlib.crc32(frame_id.encode()) % self.partitions
        return JournalRecord(ENTITY_EVENTS.name, partition, None, cloud_event_headers(ENTITY_EVENTS, frame_id), value)


class Misfits(NamedTuple):
    """Events of one frame that fit no source, with the frame's position and the reasons."""

    position: FramePosition
    events: EntityEventFrame
    reason: str


class MergeResult(NamedTuple):
    """The outcome of merging frames: events merged, events of duplicate frames, late events, and misfits.

    `late` is by view; `newest` has the greatest time and the number of events by source; `tokens` has the token of
    each partition that this worker held.
    """

    events: int
    duplicate: int
    late: dict[str, int]
    misfits: list[Misfits]
    newest: dict[str, tuple[float, int]]
    tokens: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Merging:
    """Merges frames into the store, each once however often it is read.

    Nothing else merges while `lock` is held: a filler holds it while it hands a ring over to the stream.
    """

    definitions: Definitions
    store: FeatureStore
    ownership: PartitionOwnership
    clock: Clock
    future_s: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def merge(self, frames: Sequence[ReadFrame]) -> MergeResult:
        """Merge frames of the stream into the rings that it feeds, in the order of their offsets per partition.

        Raises:
            StoreUnavailableError: some may be merged; merge the same frames again.
        """
        async with self.lock:
            is_fed, tokens = await self.ownership.fed_rings({frame.position.partition for frame in frames})
            merged = await self.merge_into(frames, is_fed)
            return merged._replace(tokens=tokens)

    async def merge_into(self, frames: Sequence[ReadFrame], is_fed: RingFilter) -> MergeResult:
        """Merge frames into the rings for which `is_fed`, given the ring and the frame's partition, is true."""
        fresh = await self.store.claim([frame.position for frame in frames])
        current = self.definitions.current
        now = self.clock.now()
        misfits: list[Misfits] = []
        tallies: dict[Ring, dict[str, list[Tally]]] = defaultdict(lambda: defaultdict(list))
        newest: dict[str, tuple[float, int]] = {}
        merged = 0
        before_cutover: dict[Ring, int] = defaultdict(int)
        for position, events, sent_at in (frame for frame, is_fresh in zip(frames, fresh, strict=True) if is_fresh):
            await asyncio.sleep(0)  # lets other tasks run between large frames
            # Measured at the record's time, so that reading it again gives the same result.
            latest = min(now, sent_at) + self.future_s
            faults = [fault(event, current.catalogue, latest) for event in events]
            fitting = [event for event, misfit in zip(events, faults, strict=True) if misfit is None]
            if len(fitting) < len(events):
                misfits.append(_misfits(position, events, faults))
            merged += len(fitting)
            for source, of_source in by_source(fitting).items():
                time, count = newest.get(source, (0.0, 0))
                newest[source] = max(time, *(event.time for event in of_source)), count + len(of_source)
                has_one_schema = len(current.catalogue.schemas[source]) == 1
                for ring in current.rings.by_source.get(source, ()):
                    if is_fed(ring, position.partition):
                        read = (
                            of_source
                            if has_one_schema
                            else [event for event in of_source if fits(event.values, ring.reads)]
                        )
                        for entity, added in tally(ring, position.partition, position.offset, read).items():
                            tallies[ring][entity].append(added)
                        if ring.has_history and position.partition != HISTORY:
                            before_cutover[ring] += sum(event.time <= ring.after_s for event in read)
        late: dict[str, int] = {}
        for ring, by_entity in tallies.items():
            # An event is late in all rings of a view, or in those of shorter windows: it counts once.
            missed = before_cutover.pop(ring, 0) + await self.store.merge(ring, by_entity)
            late[ring.view] = max(late.get(ring.view, 0), missed)
        for ring, missed in before_cutover.items():
            late[ring.view] = max(late.get(ring.view, 0), missed)
        duplicate = sum(len(frame.events) for frame, is_fresh in zip(frames, fresh, strict=True) if not is_fresh)
        return MergeResult(merged, duplicate, late, misfits, newest, {})

    async def settle(self, positions: Iterable[tuple[FramePosition, str]]) -> None:
        """Record frames as applied and wait until they are on disk; then their offsets may be committed.

        Args:
            positions: frames, each with the token that it was merged under; one without a token is not recorded.
        """
        offsets: dict[tuple[int, str], int] = {}
        for position, token in positions:
            key = position.partition, token
            offsets[key] = max(position.offset, offsets.get(key, -1))
        for (partition, token), offset in offsets.items():
            if token:
                await self.ownership.record_progress(partition, offset, token)
        await self.store.persist()


def _encoded(events: Sequence[EntityEvent]) -> bytes:
    return ENTITY_EVENTS.encode(EntityEventFrame(list(events)))


def _repeatable_id(request_id: str, number: int, value: bytes) -> str:
    """The id of a frame of a repeated call: frames of one call differ, even with the same events."""
    counted = b"\0%d" % number if number else b""
    return frame_id_of(hashlib.sha256(request_id.encode() + b"\0" + value + counted).digest())


def _misfits(position: FramePosition, events: Sequence[EntityEvent], faults: Sequence[Fault | None]) -> Misfits:
    wrong = [(event, row, misfit) for row, (event, misfit) in enumerate(zip(events, faults, strict=True)) if misfit]
    reasons = [f"events[{row}].{misfit.field} {misfit.message}" for _, row, misfit in wrong]
    more = f"; and {len(reasons) - _NAMED_REASONS} more" if len(reasons) > _NAMED_REASONS else ""
    frame = EntityEventFrame([event for event, _, _ in wrong])
    return Misfits(position, frame, "; ".join(reasons[:_NAMED_REASONS]) + more)
