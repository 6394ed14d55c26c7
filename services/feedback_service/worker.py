"""The worker: reads predictions and feedback, and publishes snapshots of the partitions it owns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from faust.streams import Stream
from faust.types import TP, StreamT

from services.feedback_service.domain.snapshots import PartitionStatus
from services.feedback_service.flushing import Flushing
from services.feedback_service.join import Join, Limits, Place
from services.feedback_service.metrics import OWNED, SNAPSHOTS
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import SnapshotStore, SnapshotsUnavailableError
from services.feedback_service.tables import ChangelogTable, LocalTables, create_table
from shared.clock import Clock
from shared.logs import logger
from shared.streams import SourceRecord, crash_on_error, create_faust, create_parker, decoded, start_at
from shared.topics import FEEDBACK, PREDICTIONS

TABLE = "entries"
RUNNING_S = 0.5
EXPERIMENTS_AT_ONCE = 20
"""Experiments published in one go: a worker that takes up partitions publishes all it knows, but bit by bit."""

_BATCH_BYTES = 1024**2  # what the producer collects of a flush for one request


def group_of(state: str) -> str:
    """The consumer group of the counts of that name. Those of the first releases were `contender-feedback`."""
    return f"contender-feedback-counts-{state}"


def changelog_of(state: str) -> str:
    """The changelog of the worker's table, as Faust names it."""
    return f"{group_of(state)}-{TABLE}-changelog"


@dataclass
class Publishing:
    """Writes what has changed to where readers find it, and how far each partition is.

    Where a partition's status is not the one that was written last, what was written with it is gone, too: the store
    was emptied, or came back as it was some time ago.
    """

    join: Join
    store: SnapshotStore
    clock: Clock
    heartbeat_s: float
    _written: dict[int, PartitionStatus] = field(default_factory=dict)

    async def publish(self) -> None:
        """Write what is due. While the store can't be reached everything stays due."""
        OWNED.set(len(self.join.partitions))
        for number in list(self.join.partitions):
            try:
                await self._publish(number)
            except SnapshotsUnavailableError as error:
                logger(__name__).warning("snapshots wait for Redis", partition=number, error=str(error))
                return

    async def _publish(self, number: int) -> None:
        joined = self.join.partitions.get(number)
        if joined is None or not joined.aggregates.settled:
            return
        aggregates = joined.aggregates
        updates = aggregates.updates(EXPERIMENTS_AT_ONCE)
        status = aggregates.status(self.clock.now())  # of the same records: more may be applied during the writes
        last = self._written.get(number)
        is_due = last is None or status.updated_at - last.updated_at >= self.heartbeat_s
        try:
            for update in updates:
                await self.store.write(update)
                SNAPSHOTS.inc()
            if last is None or is_due or status.offsets != last.offsets:
                was_there = await self.store.write_status(status, last)
                if last is not None and not was_there:
                    aggregates.publish_again()
                self._written[number] = status
        except SnapshotsUnavailableError:
            aggregates.publish_again()  # what was written since the last status may be gone, too
            raise


def create_worker(settings: FeedbackSettings, store: SnapshotStore, clock: Clock, data: Path) -> faust.App:
    """The Faust application.

    Args:
        settings: limits, intervals, where Kafka is.
        store: where snapshots go.
        clock: tells when a snapshot was made and what has expired.
        data: a folder of this process alone.
    """
    app = create_faust(
        group_of(settings.feedback_state), kafka=settings.kafka, data=data, partitions=settings.partitions
    )
    app.conf.producer_max_batch_size = _BATCH_BYTES
    on_disk = settings.table_store == "rocksdb://"
    tables = LocalTables(data / f"counts-{settings.feedback_state}" if on_disk else None, clock)
    table = create_table(app, TABLE, settings.partitions, tables)
    join = Join(tables.partition, limits_of(settings))
    changelog = changelog_of(settings.feedback_state)
    flushing = Flushing(app, join, tables, changelog, clock, settings.feedback_unacknowledged_limit)
    _read_topics(app, join, flushing)
    _follow_ownership(app, flushing, table)
    publishing = Publishing(join, store, clock, settings.snapshot_heartbeat_s)
    _repeat(app, flushing, publishing, settings)
    return app


def limits_of(settings: FeedbackSettings) -> Limits:
    """The join's limits as they are set."""
    return Limits(
        settings.allowed_lateness_s,
        settings.feedback_retention_s,
        settings.feedback_waiting_s,
        settings.feedback_waiting_limit,
    )


def _read_topics(app: faust.App, join: Join, flushing: Flushing) -> None:
    park_record = create_parker(app)

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        await park_record(source, value, reason)
        await flushing.skip(source)

    async def apply(source: SourceRecord, record: Callable[[Place], None], encode: Callable[[], bytes]) -> None:
        try:
            await flushing.apply(source, record)
        except (ValueError, OverflowError) as error:
            await park(source, encode(), str(error))

    async def record_predictions(stream: StreamT[bytes]) -> None:
        async with crash_on_error(app):
            async for frame, source in decoded(_unacknowledged(stream), PREDICTIONS, park):
                record = partial(join.record_predictions, source.frame_id, frame)
                await apply(source, record, partial(PREDICTIONS.encode, frame))

    async def record_feedback(stream: StreamT[bytes]) -> None:
        async with crash_on_error(app):
            async for frame, source in decoded(_unacknowledged(stream), FEEDBACK, park):
                await apply(source, partial(join.record_feedback, frame), partial(FEEDBACK.encode, frame))

    for topic, agent in ((PREDICTIONS.name, record_predictions), (FEEDBACK.name, record_feedback)):
        app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), name=topic)(agent)


def _repeat(app: faust.App, flushing: Flushing, publishing: Publishing, settings: FeedbackSettings) -> None:
    """What the worker does now and then. A flush that fails ends it."""

    async def flush() -> None:
        async with crash_on_error(app):
            await flushing.look()
            await flushing.flush()

    async def note_running() -> None:
        async with crash_on_error(app):
            flushing.note_running()

    app.timer(settings.feedback_flush_s)(flush)
    app.timer(RUNNING_S)(note_running)
    app.timer(settings.snapshot_interval_s)(publishing.publish)


def _unacknowledged(stream: StreamT[bytes]) -> StreamT[bytes]:
    """The stream with nothing acknowledged by Faust itself."""
    return cast("Stream[bytes]", stream).noack()


def _follow_ownership(app: faust.App, flushing: Flushing, table: ChangelogTable) -> None:
    """Keep the join to the partitions that the group has given this worker."""
    join = flushing.join

    async def on_revoked(*_: object, **__: object) -> None:
        await flushing.give_up()

    async def on_recovered() -> None:
        owned = {tp.partition for tp in app.assignor.assigned_actives() if tp.topic == PREDICTIONS.name}
        try:
            flushing.take_up(owned)
            await flushing.look()  # where the topics end decides what becomes of reports without a prediction
            await _rewind(app, join)
        except IllegalStateError:
            join.forget()  # the partitions have changed hands again, and what follows that comes here once more
        except KafkaError as error:
            await app.crash(error)
        logger(__name__).info("partitions taken up", partitions=sorted(join.partitions))

    app.on_partitions_revoked.connect(on_revoked)
    table.on_recover(on_recovered)


async def _rewind(app: faust.App, join: Join) -> None:
    """Read on from where the tables end, whatever the group has committed.

    Faust fetches from the source topics while it recovers and throws that away. It goes back to the committed offset
    afterwards, but not where there is none yet, and then skips what it threw away. And it acknowledges records of an
    earlier assignment that it skips, so a commit may be ahead of what has been recorded.
    """
    stored = {
        TP(topic, number): offset + 1
        for number, joined in join.partitions.items()
        for topic, offset in (
            (PREDICTIONS.name, joined.aggregates.marks.predictions),
            (FEEDBACK.name, joined.aggregates.marks.feedback),
        )
    }
    if not stored:
        return
    consumer: Any = app.consumer  # Faust's interface lacks what its one consumer has
    earliest = await consumer.earliest_offsets(*stored)
    committed = await consumer.seek_to_committed()
    start = {tp: max(earliest[tp], offset) for tp, offset in stored.items()}
    gone = {
        f"{tp.topic}/{tp.partition}": earliest[tp] - offset for tp, offset in stored.items() if earliest[tp] > offset
    }
    if gone:
        logger(__name__).warning("records were deleted before they were counted", records=gone)
    await start_at(consumer, start, committed)
