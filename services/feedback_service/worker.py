"""The worker: reads predictions and feedback, and publishes snapshots of the partitions it owns."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import faust
import msgspec
from aiokafka.errors import IllegalStateError, KafkaError
from faust.streams import Stream
from faust.types import TP, StreamT
from prometheus_client import Counter, Gauge
from redis import RedisError

from services.feedback_service.domain.entries import partition_of
from services.feedback_service.join import Join, Place
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import SnapshotStore
from shared.clock import Clock
from shared.logs import logger
from shared.streams import EndsProcess, SourceRecord, Steps, create_faust, create_parker, decoded, start_at
from shared.topics import FEEDBACK, PREDICTIONS

GROUP = "contender-feedback"
TABLES = ("frames", "labels")
CHANGELOGS = tuple(f"{GROUP}-{table}-changelog" for table in TABLES)
APPLIED = Counter("contender_feedback_frames_total", "Frames that the join has taken in", ["topic"])
OWNED = Gauge("contender_feedback_partitions", "Partitions whose snapshots this worker publishes")
SNAPSHOTS = Counter("contender_feedback_snapshots_total", "Snapshots written to Redis")


class TableEntries:
    """Entries in a Faust table. `unsent` holds the changelog records since it was last taken."""

    def __init__(self, table: "faust.Table[bytes, bytes]") -> None:
        self.table = table
        self.unsent: list[Awaitable[Any]] = []

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        value: bytes | None = self.table.data.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key, and send it to the changelog partition that the key names."""
        # Setting through the table itself would do the same, but hide the future that says when Kafka has it.
        self.unsent.append(self.table.send_changelog(partition_of(key), key, value))
        self.table.data[key] = value

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """All entries as they stand at the call."""
        return list(self.table.data.items())


@dataclass
class Acknowledgements:
    """Acknowledges the records of one topic, in order, each once Kafka has the changelog records that it led to.

    Faust commits on its own schedule whatever was acknowledged; a commit that overtook the changelog would lose the
    record when the worker is killed between the two. Until a partition's first commit Faust takes the first record
    acknowledged for the first there is, hence the order. `limit` records may be under way.
    """

    limit: int
    _under_way: deque["asyncio.Task[None]"] = field(default_factory=deque)

    async def after(self, sent: list[Awaitable[Any]], acknowledge: Callable[[], bool]) -> None:
        """Acknowledge when all of `sent` have arrived; return at once, unless too many are under way.

        Raises:
            aiokafka.errors.KafkaError: Kafka has refused a record of this frame or an earlier one.
        """
        while self._under_way and (self._under_way[0].done() or len(self._under_way) >= self.limit):
            await self._under_way[0]
            self._under_way.popleft()
        previous = self._under_way[-1] if self._under_way else None
        self._under_way.append(asyncio.create_task(self._finish(previous, sent, acknowledge)))

    async def _finish(
        self, previous: "asyncio.Task[None] | None", sent: list[Awaitable[Any]], acknowledge: Callable[[], bool]
    ) -> None:
        await asyncio.gather(*sent)
        if previous is not None:
            await previous
        acknowledge()


@dataclass
class Publishing:
    """Writes snapshots of partitions that have changed, and of all of them now and then.

    The repetition puts right what a worker that had stalled may have written after it lost the partition.
    """

    join: Join
    store: SnapshotStore
    clock: Clock
    heartbeat_s: float
    _written: dict[int, tuple[dict[str, int], float]] = field(default_factory=dict)

    async def publish(self) -> None:
        """Write what is due. While Redis can't be reached everything stays due."""
        OWNED.set(len(self.join.partitions))
        for partition, aggregates in list(self.join.partitions.items()):
            offsets, written_at = self._written.get(partition, ({}, 0.0))
            now = self.clock.now()
            if offsets == aggregates.offsets and now - written_at < self.heartbeat_s:
                continue
            snapshot = aggregates.snapshot(now)
            try:
                await self.store.write(snapshot)
            except RedisError as error:
                logger(__name__).warning("snapshot waits for Redis", partition=partition, error=repr(error))
                return
            SNAPSHOTS.inc()
            self._written[partition] = (snapshot.offsets, now)


def create_worker(
    settings: FeedbackSettings, store: SnapshotStore, clock: Clock, data: Path, steps: Steps
) -> faust.App:
    """The Faust application.

    Args:
        settings: limits, intervals, where Kafka is.
        store: where snapshots go.
        clock: tells when a snapshot was made.
        data: a folder of this process alone.
        steps: counts those of a rebuild.
    """
    app = create_faust(
        GROUP, kafka=settings.kafka, data=data, partitions=settings.partitions, store=settings.table_store
    )
    frames, labels = (TableEntries(_create_table(app, name, settings.partitions)) for name in TABLES)
    join = Join(frames, labels, allowed_lateness_s=settings.allowed_lateness_s, on_step=steps.take)
    park = create_parker(app)
    acknowledgements = {
        topic: Acknowledgements(settings.feedback_unacknowledged_limit) for topic in (PREDICTIONS.name, FEEDBACK.name)
    }

    async def take_in(source: SourceRecord, record: Callable[[], None], encode: Callable[[], bytes]) -> None:
        """Record a frame, or park it, and see to it that its source is acknowledged."""
        if not join.owns(source.partition):
            return  # lost in a rebalance: the new owner reads it
        try:
            record()
        except (ValueError, OverflowError) as error:
            await park(source, encode(), str(error))
            await acknowledgements[source.topic].after([], source.ack)
            return
        APPLIED.labels(source.topic).inc()
        sent, frames.unsent, labels.unsent = [*frames.unsent, *labels.unsent], [], []
        await acknowledgements[source.topic].after(sent, source.ack)

    async def record_predictions(stream: StreamT[bytes]) -> None:
        async with EndsProcess(app):
            async for frame, source in decoded(_unacknowledged(stream), PREDICTIONS, park):
                at = Place(source.partition, source.offset)
                record = partial(join.record_predictions, source.frame_id, frame, at)
                await take_in(source, record, partial(PREDICTIONS.encode, frame))

    async def record_feedback(stream: StreamT[bytes]) -> None:
        async with EndsProcess(app):
            async for frame, source in decoded(_unacknowledged(stream), FEEDBACK, park):
                record = partial(join.record_feedback, frame, Place(source.partition, source.offset))
                await take_in(source, record, partial(FEEDBACK.encode, frame))

    for topic, agent in ((PREDICTIONS.name, record_predictions), (FEEDBACK.name, record_feedback)):
        app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), name=topic)(agent)
    _follow_ownership(app, join, frames)
    publishing = Publishing(join, store, clock, settings.snapshot_heartbeat_s)
    app.timer(settings.snapshot_interval_s)(publishing.publish)
    return app


def _unacknowledged(stream: StreamT[bytes]) -> StreamT[bytes]:
    """The stream with nothing acknowledged by Faust itself."""
    return cast("Stream[bytes]", stream).noack()


def _create_table(app: faust.App, name: str, partitions: int) -> "faust.Table[bytes, bytes]":
    table = app.Table(name, key_type=bytes, value_type=bytes, partitions=partitions)
    return cast("faust.Table[bytes, bytes]", table)


def _follow_ownership(app: faust.App, join: Join, entries: TableEntries) -> None:
    """Keep the join to the partitions that the group has given this worker."""

    async def on_revoked(*_: object, **__: object) -> None:
        join.forget()

    async def on_recovered() -> None:
        owned = {tp.partition for tp in app.assignor.assigned_actives() if tp.topic == PREDICTIONS.name}
        try:
            await join.rebuild(owned)
            await _rewind(app, join)
        except IllegalStateError:
            join.forget()  # the partitions have changed hands again, and what follows that comes here once more
        except (KafkaError, msgspec.DecodeError) as error:
            await app.crash(error)
        logger(__name__).info("partitions rebuilt", partitions=sorted(join.partitions))

    app.on_partitions_revoked.connect(on_revoked)
    entries.table.on_recover(on_recovered)


async def _rewind(app: faust.App, join: Join) -> None:
    """Read on from where the tables end, or from the group's committed offset if that is lower.

    Faust fetches from the source topics while it recovers and throws that away. It goes back to the committed offset
    afterwards, but not where there is none yet, and then skips what it threw away. And it acknowledges records of an
    earlier assignment that it skips, so a commit may be ahead of what has been recorded.
    """
    stored = {
        TP(topic, partition): aggregates.offsets.get(topic, -1) + 1
        for partition, aggregates in join.partitions.items()
        for topic in (PREDICTIONS.name, FEEDBACK.name)
    }
    if not stored:
        return
    consumer: Any = app.consumer  # Faust's interface lacks what its one consumer has
    earliest = await consumer.earliest_offsets(*stored)
    committed = await consumer.seek_to_committed()
    start = {tp: max(earliest[tp], min(offset, committed.get(tp) or 0)) for tp, offset in stored.items()}
    await start_at(consumer, start, committed)
