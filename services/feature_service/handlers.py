"""Use cases of events: add them, merge their frames. Knows no HTTP and no Kafka."""

import asyncio
import hashlib
import secrets
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import msgspec

from services.feature_service.definitions import Definitions
from services.feature_service.domain.rings import HISTORY, Ring
from services.feature_service.domain.tallies import Tally, by_source, tally
from services.feature_service.domain.validation import Fault, fault, fits
from services.feature_service.errors import InvalidEventError, UnknownSourceError
from services.feature_service.store.protocol import FeatureStore, FramePosition
from shared.clock import Clock
from shared.events import EntityEvent, EntityEventFrame
from shared.frames import split
from shared.ids import frame_id_of, new_frame_id
from shared.journal import Journal, JournalRecord
from shared.topics import ENTITY_EVENTS, cloud_event_headers, read_json

_NAMED_REASONS = 3
Wanted = Callable[[Ring, int], bool]
"""Whether frames of a partition go into a ring."""


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


class PartitionTakenError(Exception):
    """Another worker has taken a partition that this one believes to be its own: it must begin anew."""


@dataclass(slots=True)
class PartitionOwnership:
    """Which rings the stream feeds from the partitions of this worker.

    What the store says counts only at the moment a partition becomes this worker's, before its first frame is merged.
    Afterwards a ring is fed when this worker has filled it itself: frames that passed by before were not merged.

    Every ring holds the frames of a partition up to some offset, without gaps: else offset marks would hide what is
    missing. `owned` has the partitions that are this worker's, from the moment they may be read.
    """

    store: FeatureStore
    owned: set[int] = field(default_factory=set)
    _fed: dict[int, set[str]] = field(default_factory=dict)
    _tokens: dict[int, str] = field(default_factory=dict)
    _done: dict[int, int] = field(default_factory=dict)

    def assign(self, partitions: Iterable[int]) -> None:
        """These partitions are this worker's now, and were another's in between for all it knows."""
        self.forget([*self.owned, *(given := set(partitions))])
        self.owned = given

    async def acquire(self, partition: int) -> str:
        """Take a partition over, unless it is this worker's already; the token that shows it."""
        if token := self.token(partition):
            return token
        token = self._tokens[partition] = secrets.token_hex(8)
        try:
            fed = set(await self.store.own(partition, token))
        except BaseException:
            self.release(partition, token)
            raise
        if self.token(partition) == token:  # else it was given up meanwhile
            self._fed[partition] = fed
        return token

    def forget(self, partitions: Iterable[int]) -> None:
        """Give partitions up."""
        for partition in partitions:
            self.owned.discard(partition)
            self._fed.pop(partition, None)
            self._tokens.pop(partition, None)
            self._done.pop(partition, None)

    def release(self, partition: int, token: str) -> None:
        """The store does not know a token: the partition is taken over again, if it is ours still."""
        if self.token(partition) == token:
            self._fed.pop(partition, None)
            del self._tokens[partition]

    def feeds(self, ring: Ring, partition: int) -> bool:
        """Whether the stream of a partition feeds a ring."""
        return ring.name in self._fed.get(partition, ())

    async def fed(self, partitions: Collection[int]) -> tuple[Wanted, dict[int, str]]:
        """Which rings frames of some partitions go into, and the tokens of those that are this worker's.

        Merges frames of partitions this worker does not own into the rings the owner feeds; offset marks make the
        double merge harmless. Acquiring the partition for them would take it from its owner.
        """
        fed: dict[int, Collection[str]] = {}
        tokens: dict[int, str] = {}
        for partition in partitions:
            token = await self.acquire(partition) if partition in self.owned else ""
            if token and token == self.token(partition):
                tokens[partition] = token
                fed[partition] = frozenset(self._fed[partition])
            else:
                (fed[partition],) = await self.store.filled_rings([partition])
        return lambda ring, partition: ring.name in fed[partition], tokens

    async def record_progress(self, partition: int, offset: int, token: str) -> None:
        """Note how far a partition has been merged under a token; that of a former owner notes nothing.

        A former owner has not merged into the rings that a newer one has filled.

        Raises:
            PartitionTakenError: another worker has taken it, and this one was not told.
        """
        self.note_done(partition, offset)
        owner = await self.store.note_applied(partition, offset, token)
        if not owner:  # the store has lost everything
            self.release(partition, token)
        elif owner != token == self.token(partition):
            raise PartitionTakenError(f"partition {partition} is another worker's")

    def note_done(self, partition: int, offset: int) -> None:
        """Remember how far a partition's stream has come, whatever becomes of the store."""
        self._done[partition] = max(offset, self._done.get(partition, -1))

    async def settle_filled(self, partition: int, offset: int, token: str) -> None:
        """Record the progress of a partition whose rings are filled up to an offset, as far as its stream has come.

        Recorded at once so that an emptied store is noticed before the next frame; never past the stream's position,
        where unparsed records may wait.
        """
        if (done := min(offset, self._done.get(partition, -1))) >= 0:
            await self.record_progress(partition, done, token)

    def token(self, partition: int) -> str:
        """Shows that a partition is this worker's; empty where it is not."""
        return self._tokens.get(partition, "")

    async def mark_filled(self, rings: Sequence[Ring], partition: int, token: str) -> bool:
        """Let the stream feed rings that were filled under a token; False when the partition was given up meanwhile.

        False, too, where the store has lost everything: the partition is taken over again, and rings are filled anew.
        """
        if not token or token != self.token(partition):
            return False
        names = [ring.name for ring in rings]
        owner = await self.store.mark_filled(names, partition, token)
        if not owner:
            self.release(partition, token)
        if owner != token or token != self.token(partition):
            return False
        self._fed[partition].update(names)
        return True

    def feeds_nothing(self, partition: int) -> bool:
        """Whether the stream of a partition feeds no ring yet."""
        return not self._fed.get(partition)


class ReadFrame(NamedTuple):
    """A frame as it was read from the topic. `sent_at` is its record's time in seconds."""

    position: FramePosition
    events: Sequence[EntityEvent]
    sent_at: float = inf


class Misfits(NamedTuple):
    """Events of one frame that were left out, with where the frame lies and what is wrong with them."""

    position: FramePosition
    events: EntityEventFrame
    reason: str


class Merged(NamedTuple):
    """What came of some frames: events merged, those of duplicated frames, those too late, and those left out.

    `late` is by view; `newest` has the greatest time and the number of events by source; `tokens` shows by partition
    that it was this worker's.
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

    Nothing else may merge while `lock` is held: whoever has filled a ring with what was before takes it to hand the
    ring over to the stream.
    """

    definitions: Definitions
    store: FeatureStore
    feeds: PartitionOwnership
    clock: Clock
    future_s: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def merge(self, frames: Sequence[ReadFrame]) -> Merged:
        """Merge frames of the stream into the rings that it feeds, in the order of their offsets per partition.

        Raises:
            StoreUnavailableError: part of them may be merged; merging the same frames again is right.
        """
        async with self.lock:
            wanted, tokens = await self.feeds.fed({frame.position.partition for frame in frames})
            merged = await self.merge_into(frames, wanted)
            return merged._replace(tokens=tokens)

    async def merge_into(self, frames: Sequence[ReadFrame], wanted: Wanted) -> Merged:
        """Merge frames into the rings that are `wanted`, a question of the ring and the frame's partition."""
        fresh = await self.store.claim([frame.position for frame in frames])
        current = self.definitions.current
        now = self.clock.now()
        misfits: list[Misfits] = []
        tallies: dict[Ring, dict[str, list[Tally]]] = defaultdict(lambda: defaultdict(list))
        newest: dict[str, tuple[float, int]] = {}
        merged = 0
        passed: dict[Ring, int] = defaultdict(int)
        for position, events, sent_at in (frame for frame, is_fresh in zip(frames, fresh, strict=True) if is_fresh):
            await asyncio.sleep(0)  # frames may be large, and others have something to do, too
            # By when it was sent, so that whoever reads it again finds the same.
            latest = min(now, sent_at) + self.future_s
            faults = [fault(event, current.catalogue, latest) for event in events]
            fitting = [event for event, what in zip(events, faults, strict=True) if what is None]
            if len(fitting) < len(events):
                misfits.append(_misfits(position, events, faults))
            merged += len(fitting)
            for source, of_source in by_source(fitting).items():
                time, count = newest.get(source, (0.0, 0))
                newest[source] = max(time, *(event.time for event in of_source)), count + len(of_source)
                alike = len(current.catalogue.schemas[source]) == 1
                for ring in current.rings.by_source.get(source, ()):
                    if wanted(ring, position.partition):
                        read = of_source if alike else [event for event in of_source if fits(event.values, ring.reads)]
                        for entity, one in tally(ring, position.partition, position.offset, read).items():
                            tallies[ring][entity].append(one)
                        if ring.has_history and position.partition != HISTORY:
                            passed[ring] += sum(event.time <= ring.after_s for event in read)
        late: dict[str, int] = {}
        for ring, by_entity in tallies.items():
            # An event is late in all rings of a view, or in those of shorter windows: it counts once.
            missed = passed.pop(ring, 0) + await self.store.merge(ring, by_entity)
            late[ring.view] = max(late.get(ring.view, 0), missed)
        for ring, events_before in passed.items():
            late[ring.view] = max(late.get(ring.view, 0), events_before)
        duplicate = sum(len(frame.events) for frame, is_fresh in zip(frames, fresh, strict=True) if not is_fresh)
        return Merged(merged, duplicate, late, misfits, newest, {})

    async def settle(self, positions: Iterable[tuple[FramePosition, str]]) -> None:
        """Note frames as applied and wait until they are on disk: after that their offsets may be committed.

        Args:
            positions: frames, each with the token that it was merged under; without one nothing is noted.
        """
        offsets: dict[tuple[int, str], int] = {}
        for position, token in positions:
            place = position.partition, token
            offsets[place] = max(position.offset, offsets.get(place, -1))
        for (partition, token), offset in offsets.items():
            if token:
                await self.feeds.record_progress(partition, offset, token)
        await self.store.persist()


def _encoded(events: Sequence[EntityEvent]) -> bytes:
    return ENTITY_EVENTS.encode(EntityEventFrame(list(events)))


def _repeatable_id(request_id: str, number: int, value: bytes) -> str:
    """The id of a call's frame: two frames of one call differ, even with the same events."""
    counted = b"\0%d" % number if number else b""
    return frame_id_of(hashlib.sha256(request_id.encode() + b"\0" + value + counted).digest())


def decode_frame(value: bytes) -> list[EntityEvent]:
    """The events of a record: a frame, or one plain event.

    Raises:
        msgspec.DecodeError: neither.
    """
    try:
        return ENTITY_EVENTS.decode(value).events
    except msgspec.ValidationError as no_frame:
        try:
            return [read_json(value, EntityEvent)]
        except msgspec.ValidationError as no_event:
            raise msgspec.ValidationError(f"neither a frame ({no_frame}) nor an event ({no_event})") from no_event


def _misfits(position: FramePosition, events: Sequence[EntityEvent], faults: Sequence[Fault | None]) -> Misfits:
    wrong = [(event, row, what) for row, (event, what) in enumerate(zip(events, faults, strict=True)) if what]
    reasons = [f"events[{row}].{what.field} {what.message}" for _, row, what in wrong]
    more = f"; and {len(reasons) - _NAMED_REASONS} more" if len(reasons) > _NAMED_REASONS else ""
    frame = EntityEventFrame([event for event, _, _ in wrong])
    return Misfits(position, frame, "; ".join(reasons[:_NAMED_REASONS]) + more)
