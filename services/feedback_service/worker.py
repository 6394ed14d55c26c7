"""The worker: reads predictions and feedback, and publishes snapshots of the partitions it owns."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from faust.exceptions import ProducerSendError
from faust.streams import Stream
from faust.types import TP, StreamT

from contender.contracts.feedback_service import VerdictEvent
from services.feedback_service.changelog import ChangelogTable, create_table
from services.feedback_service.domain.marks import Marks
from services.feedback_service.domain.snapshots import PartitionStatus
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.experiments import ExperimentsFromKafka
from services.feedback_service.flushing import Flusher
from services.feedback_service.join import Join, Limits
from services.feedback_service.judging import Judge
from services.feedback_service.metrics import OWNED, SNAPSHOTS
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import SnapshotStore
from services.feedback_service.tables import LocalTables
from services.feedback_service.verdict_store import VerdictStore
from shared.background import run_every
from shared.clock import Clock
from shared.errors import Unavailable
from shared.events import FeedbackFrame, PredictionFrame
from shared.logs import logger
from shared.streams import SourceRecord, crash_on_error, create_faust, create_parker, decoded, start_at
from shared.topics import FEEDBACK, PREDICTIONS, VERDICTS, Topic, cloud_event_headers

FrameT = TypeVar("FrameT", PredictionFrame, FeedbackFrame)
TABLE = "entries"
RUNNING_S = 0.5
EXPERIMENTS_AT_ONCE = 20
"""Experiments published at a time: a worker that acquires partitions publishes all of them, but bit by bit."""

_JUDGING_PARTITION = 0
"""The worker that owns it looks for verdicts: one at a time, but for the moments of a rebalance."""

_SEND_S = 10.0
_LAST_RETRY_S = 10.0
_BATCH_BYTES = 1024**2  # of a flush that the producer collects for one request


def group_of(state: str) -> str:
    """The consumer group of the counts of that name. In the first releases it was `contender-feedback`."""
    return f"contender-feedback-counts-{state}"


def changelog_of(state: str) -> str:
    """The changelog of the worker's table, as Faust names it."""
    return f"{group_of(state)}-{TABLE}-changelog"


@dataclass
class SnapshotPublisher:
    """Writes the changed experiments and each partition's status to the store, where readers find them.

    If the store holds another status than the last one written, it was emptied or restored from an older state: then
    everything is published again.
    """

    join: Join
    store: SnapshotStore
    clock: Clock
    heartbeat_s: float
    _written: dict[int, PartitionStatus] = field(default_factory=dict)

    async def publish(self) -> None:
        """Write what is due. It stays due while the store can't be reached."""
        OWNED.set(len(self.join.partitions))
        for number in list(self.join.partitions):
            try:
                await self._publish(number)
            except ResultsUnavailable as error:
                logger(__name__).warning("snapshots wait for the store", partition=number, error=str(error))
                return

    async def _publish(self, number: int) -> None:
        joined = self.join.partitions.get(number)
        if joined is None or not joined.aggregates.settled:
            return
        aggregates = joined.aggregates
        updates = aggregates.updates(EXPERIMENTS_AT_ONCE)
        status = aggregates.status(self.clock.now())  # now, since more records may be applied during the writes
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
        except ResultsUnavailable:
            aggregates.publish_again()  # the writes since the last status may be lost
            raise


def create_worker(
    settings: FeedbackSettings,
    store: SnapshotStore,
    clock: Clock,
    data: Path,
    open_verdicts: Callable[[], AbstractAsyncContextManager[VerdictStore]],
) -> faust.App:
    """The Faust application.

    Args:
        settings: limits, intervals, Kafka's address.
        store: gets the snapshots.
        clock: the time of snapshots and expiry.
        data: a folder of this process alone.
        open_verdicts: opens the store of verdicts.
    """
    app = create_faust(
        group_of(settings.feedback_state), kafka=settings.kafka, data=data, partitions=settings.partitions
    )
    app.conf.producer_max_batch_size = _BATCH_BYTES
    on_disk = settings.table_store == "rocksdb://"
    tables = LocalTables(data / f"counts-{settings.feedback_state}" if on_disk else None, clock)
    table = create_table(app, TABLE, settings.partitions, tables)
    revisions = ExperimentsFromKafka(settings.kafka)
    join = Join(tables.partition, limits_of(settings), revisions)
    changelog = changelog_of(settings.feedback_state)
    flushing = Flusher(app, join, tables, changelog, clock, settings.feedback_unacknowledged_limit)
    _read_topics(app, flushing)
    _follow_ownership(app, flushing, table)
    publishing = SnapshotPublisher(join, store, clock, settings.snapshot_heartbeat_s)
    _repeat(app, flushing, publishing, settings)
    _follow_experiments(app, revisions)

    def create_judge(verdicts: VerdictStore) -> Judge:
        return Judge(
            store,
            revisions,
            verdicts,
            create_sender(app),
            clock,
            lambda: _JUDGING_PARTITION in join.partitions,
            settings.partitions,
            settings.vintage_interval_s,
        )

    judge_experiments(app, open_verdicts, create_judge, settings.verdict_interval_s)
    return app


def create_sender(app: faust.App) -> Callable[[VerdictEvent], Awaitable[None]]:
    """What sends an event to the topic `verdicts`, through the application's own producer, and waits until it is there.

    An event that is sent again has the same id. Where Kafka does not take it, the sender raises Unavailable.
    """
    topic = app.topic(VERDICTS.name, key_serializer="raw", value_serializer="raw")

    async def send(event: VerdictEvent) -> None:
        found_at = datetime.fromtimestamp(event.at, UTC).isoformat().replace("+00:00", "Z")
        headers = dict(cloud_event_headers(VERDICTS, f"{event.experiment}/{event.number}", found_at))
        try:
            async with asyncio.timeout(_SEND_S):
                await (await topic.send(key=event.experiment.encode(), value=VERDICTS.encode(event), headers=headers))
        except (KafkaError, ProducerSendError, TimeoutError) as error:
            raise Unavailable("Kafka does not take verdicts") from error

    return send


def limits_of(settings: FeedbackSettings) -> Limits:
    """The join's limits as they are set."""
    return Limits(
        settings.allowed_lateness_s,
        settings.feedback_retention_s,
        settings.feedback_waiting_s,
        settings.feedback_waiting_limit,
    )


def _read_topics(app: faust.App, flushing: Flusher) -> None:
    park_record = create_parker(app)

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        await park_record(source, value, reason)
        await flushing.skip(source)

    def create_agent(topic: Topic[FrameT]) -> Callable[[StreamT[bytes]], Awaitable[None]]:
        async def apply(stream: StreamT[bytes]) -> None:
            async with crash_on_error(app):
                async for frame, source in decoded(_unacknowledged(stream), topic, park):
                    try:
                        await flushing.apply(source, frame)
                    except (ValueError, OverflowError) as error:
                        await park(source, topic.encode(frame), str(error))

        return apply

    for name, agent in ((PREDICTIONS.name, create_agent(PREDICTIONS)), (FEEDBACK.name, create_agent(FEEDBACK))):
        app.agent(app.topic(name, key_serializer="raw", value_serializer="raw"), name=name)(agent)


def _repeat(app: faust.App, flushing: Flusher, publishing: SnapshotPublisher, settings: FeedbackSettings) -> None:
    """The worker's timers. A flush that fails ends the process."""

    async def flush() -> None:
        async with crash_on_error(app):
            await flushing.check_ends()
            await flushing.flush()

    async def note_running() -> None:
        async with crash_on_error(app):
            flushing.note_running()

    app.timer(settings.feedback_flush_s)(flush)
    app.timer(RUNNING_S)(note_running)
    app.timer(settings.snapshot_interval_s)(publishing.publish)


def _follow_experiments(app: faust.App, revisions: ExperimentsFromKafka) -> None:
    """Keep the revisions up to date while the worker runs."""

    async def follow() -> None:
        async with revisions:
            await app.wait_until_stopped()

    app.task(follow)


def judge_experiments(
    app: faust.App,
    open_verdicts: Callable[[], AbstractAsyncContextManager[VerdictStore]],
    create_judge: Callable[[VerdictStore], Judge],
    every_s: float,
) -> None:
    """Look for verdicts while the worker runs. What is away is logged once and tried again."""

    async def judge() -> None:
        async with (
            open_verdicts() as verdicts,
            run_every(create_judge(verdicts).look, every_s, slowest_s=_LAST_RETRY_S, name="look for verdicts"),
        ):
            await app.wait_until_stopped()

    async def keep_judging() -> None:
        async with run_every(judge, every_s, slowest_s=_LAST_RETRY_S, name="open the database of verdicts"):
            await app.wait_until_stopped()

    app.task(keep_judging)


def _unacknowledged(stream: StreamT[bytes]) -> StreamT[bytes]:
    """The stream with nothing acknowledged by Faust itself."""
    return cast("Stream[bytes]", stream).noack()


def _follow_ownership(app: faust.App, flushing: Flusher, table: ChangelogTable) -> None:
    """Keep the join to the partitions that the group has assigned to this worker."""
    join = flushing.join

    async def on_revoked(*_: object, **__: object) -> None:
        await flushing.release()

    async def on_recovered() -> None:
        owned = {tp.partition for tp in app.assignor.assigned_actives() if tp.topic == PREDICTIONS.name}
        try:
            flushing.acquire(owned)
            await flushing.check_ends()  # the ends decide what becomes of reports without a prediction
            await _rewind(app, join)
        except IllegalStateError:
            join.forget()  # the partitions have been reassigned again, and that recovery ends here again
        except KafkaError as error:
            await app.crash(error)
        logger(__name__).info("partitions acquired", partitions=sorted(join.partitions))

    app.on_partitions_revoked.connect(on_revoked)
    table.on_recover(on_recovered)


async def _rewind(app: faust.App, join: Join) -> None:
    """Read on from the tables' offsets, whatever the group has committed.

    Faust fetches records while it recovers, discards them, and seeks back to the committed offset; where there is none
    yet it skips the discarded records. It also acknowledges records of an earlier assignment that it skips, so a
    commit may be ahead of the tables.
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
    consumer: Any = app.consumer  # Faust's interface lacks methods of its only implementation
    earliest = await consumer.earliest_offsets(*stored)
    for number, joined in join.partitions.items():
        first = [earliest[TP(topic, number)] for topic in (PREDICTIONS.name, FEEDBACK.name)]
        joined.aggregates.begins = Marks(*(offset - 1 for offset in first))
    committed = await consumer.seek_to_committed()
    start = {tp: max(earliest[tp], offset) for tp, offset in stored.items()}
    gone = {
        f"{tp.topic}/{tp.partition}": earliest[tp] - offset for tp, offset in stored.items() if earliest[tp] > offset
    }
    if gone:
        logger(__name__).warning("records were deleted before they were counted", records=gone)
    await start_at(consumer, start, committed)
