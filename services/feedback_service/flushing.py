"""Flushes: the join's changes become durable, then the source records are acknowledged."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from time import monotonic, thread_time

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from services.feedback_service.changelog import send
from services.feedback_service.join import Join, PartitionJoin, SourceOffset
from services.feedback_service.metrics import APPLIED, DELETED, WAITING
from services.feedback_service.tables import LocalTables
from shared.clock import Clock
from shared.events import FeedbackFrame, PredictionFrame
from shared.logs import logger
from shared.streams import SourceRecord
from shared.topics import FEEDBACK, PREDICTIONS

STALLED_S = 5.0
"""A worker that was suspended for longer may have lost its partitions: the group's session lasts 6 s."""

CHANGED_BYTES = 16 * 1024**2
"""Changes of a partition, held in memory, that are flushed without waiting for the next flush."""

_ASK_S = 3.0
_SLACK_S = 60.0
"""How far the times of records may be out of order before an expired entry is deleted."""

_DELETED_AT_ONCE = 2_000  # entries a partition and flush


class StalledError(RuntimeError):
    """The worker was suspended so long that another may own its partitions: it must not write to their tables."""


@dataclass
class Flusher:
    """Applies records to the join, and makes their changes durable.

    Args:
        app: the application whose producer writes the changelog.
        join: the partitions.
        tables: their entries on this machine.
        changelog: the changelog's topic.
        clock: decides which entries have expired.
        limit: most records between two flushes.
        stalled_s: see STALLED_S.
        time_s: a monotonic clock, in seconds.
        computed_s: CPU seconds of this thread.
    """

    app: faust.App
    join: Join
    tables: LocalTables
    changelog: str
    clock: Clock
    limit: int
    stalled_s: float = STALLED_S
    time_s: Callable[[], float] = monotonic
    computed_s: Callable[[], float] = thread_time
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _acknowledge: list[Callable[[], bool]] = field(default_factory=list)
    _expire_until: dict[int, float] = field(default_factory=dict)
    _seen_running: float = inf
    _seen_computed: float = 0.0

    async def apply(self, source: SourceRecord, frame: PredictionFrame | FeedbackFrame) -> None:
        """Apply a record's frame to its partition, if this worker owns it.

        Raises:
            ValueError: the frame can't be applied. `skip` the record once it is parked.
        """
        async with self._lock:
            partition = self.join.partitions.get(source.partition)
            if partition is None:
                return  # lost in a rebalance: the new owner reads it
            if isinstance(frame, PredictionFrame):
                partition.record_predictions(source.frame_id, frame, self._offset_of(source))
            else:
                partition.record_feedback(frame, self._offset_of(source))
            self._acknowledge.append(source.ack)
            changed = partition.table.size
        APPLIED.labels(source.topic).inc()
        if len(self._acknowledge) >= self.limit or changed >= CHANGED_BYTES:
            await self.flush()

    async def skip(self, source: SourceRecord) -> None:
        """Note that a record was parked."""
        async with self._lock:
            partition = self.join.partitions.get(source.partition)
            if partition is not None:
                partition.applied(source.topic, self._offset_of(source))
                self._acknowledge.append(source.ack)

    def _offset_of(self, source: SourceRecord) -> SourceOffset:
        return SourceOffset(source.offset, min(source.sent_at, self.clock.now()))

    def acquire(self, owned: Iterable[int]) -> None:
        """Own these partitions. The group assigned them just now, however long their tables took to open."""
        self.join.assign(owned)
        self._seen_running = inf

    async def release(self) -> None:
        """Drop all partitions once a running flush is in Kafka, where their next owner must find it.

        Raises:
            TimeoutError: Kafka has not accepted it in time.
        """
        async with asyncio.timeout(self.stalled_s), self._lock:
            self.join.forget()

    def note_running(self) -> None:
        """Note that the process runs; it must be called more often than every `stalled_s`.

        Time that this thread computes doesn't count: the consumer's own thread keeps the group's session, and a worker
        that ended itself over one large record would read it again and again.

        Raises:
            StalledError: the process was suspended for longer.
        """
        now, computed = self.time_s(), self.computed_s()
        suspended = now - self._seen_running - (computed - self._seen_computed)
        if suspended > self.stalled_s:
            raise StalledError(f"the worker was suspended for {suspended:.0f} s")
        self._seen_running, self._seen_computed = now, computed

    async def flush(self) -> None:
        """Write the changes, then acknowledge the records that caused them.

        Raises:
            aiokafka.errors.KafkaError: Kafka refused a record of the changelog.
            StalledError: another worker may own the partitions by now.
        """
        async with self._lock:
            self.note_running()
            acknowledge, self._acknowledge = self._acknowledge, []
            partitions = list(self.join.partitions.items())
            await asyncio.gather(*(self._flush(number, partition) for number, partition in partitions))
            for acknowledged in acknowledge:
                acknowledged()
            WAITING.set(sum(partition.waiting for _, partition in partitions))

    async def _flush(self, number: int, partition: PartitionJoin) -> None:
        writes = partition.flush(self._expire_until.get(number, -inf), _DELETED_AT_ONCE)
        if not writes:
            self.tables.partition(number).note_current()
            return
        offset = await send(self.app, self.changelog, number, writes)
        if self.join.partitions.get(number) is partition:
            self.tables.partition(number).write(writes, offset)
            partition.flushed()
            DELETED.inc(sum(value is None for _, value in writes))

    async def check_ends(self) -> None:
        """Ask Kafka for the ends of the topics, to see which partitions are read to the end and what has expired."""
        partitions = dict(self.join.partitions)
        topics = [TP(topic, number) for topic in (PREDICTIONS.name, FEEDBACK.name) for number in partitions]
        if not topics:
            return
        asked_at = self.clock.now()
        requests = {number: partition.aggregates.request_ends(asked_at) for number, partition in partitions.items()}
        try:
            async with asyncio.timeout(_ASK_S):
                ends = await self.app.consumer.highwaters(*topics)
        except (KafkaError, TimeoutError) as error:
            logger(__name__).info("Kafka did not answer with the ends of its topics", error=repr(error))
            return
        for number, partition in partitions.items():
            marks = partition.aggregates.marks
            predictions_end, feedback_end = (ends[TP(topic.name, number)] for topic in (PREDICTIONS, FEEDBACK))
            partition.predictions_end = predictions_end
            partition.aggregates.note_ends(requests[number], predictions_end, feedback_end)
            has_predictions = marks.predictions + 1 >= predictions_end
            has_feedback = marks.feedback + 1 >= feedback_end
            self._expire_until[number] = -_SLACK_S + min(
                asked_at if has_predictions else marks.predictions_sent_at,
                asked_at if has_feedback else marks.feedback_sent_at,
            )
