"""How what the join has changed becomes durable: in flushes, after which the source records are acknowledged."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from time import thread_time

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from services.feedback_service.join import Join, PartitionJoin, Place
from services.feedback_service.metrics import APPLIED, DELETED, WAITING
from services.feedback_service.tables import LocalTables, send
from shared.clock import Clock
from shared.logs import logger
from shared.streams import SourceRecord
from shared.topics import FEEDBACK, PREDICTIONS

STALLED_S = 5.0
"""A worker that stood still for longer may have lost its partitions: the group's session lasts 6 s."""

CHANGED_BYTES = 16 * 1024**2
"""Changes of a partition that are flushed at once: they are held in memory."""

_ASK_S = 3.0
_SLACK_S = 60.0
"""What the times of records may lack in order before an entry is deleted."""

_DELETED_AT_ONCE = 2_000  # entries a partition and flush


class StalledError(RuntimeError):
    """The worker stood still for so long that another may own its partitions: it must not write to their tables."""


@dataclass
class Flushing:
    """Applies records to the join, and makes what they change durable.

    Args:
        app: the application whose producer writes the changelog.
        join: the partitions.
        tables: what is kept of them on this machine.
        changelog: the changelog's topic.
        clock: tells what has expired.
        limit: records between two flushes.
    """

    app: faust.App
    join: Join
    tables: LocalTables
    changelog: str
    clock: Clock
    limit: int
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _acknowledge: list[Callable[[], bool]] = field(default_factory=list)
    _expire_until: dict[int, float] = field(default_factory=dict)
    _seen_running: float = inf
    _seen_computed: float = 0.0

    async def apply(self, source: SourceRecord, record: Callable[[Place], None]) -> None:
        """Apply a record of a partition that this worker owns.

        Raises:
            ValueError: the record can't be applied. `skip` it once it is set aside.
        """
        at = Place(source.partition, source.offset, min(source.sent_at, self.clock.now()))
        async with self._lock:
            if not self.join.owns(source.partition):
                return  # lost in a rebalance: the new owner reads it
            record(at)
            self._acknowledge.append(source.ack)
            changed = self.join.partitions[source.partition].table.size
        APPLIED.labels(source.topic).inc()
        if len(self._acknowledge) >= self.limit or changed >= CHANGED_BYTES:
            await self.flush()

    async def skip(self, source: SourceRecord) -> None:
        """Note that a record was set aside."""
        at = Place(source.partition, source.offset, min(source.sent_at, self.clock.now()))
        async with self._lock:
            if self.join.owns(source.partition):
                self.join.partitions[source.partition].applied(source.topic, at)
                self._acknowledge.append(source.ack)

    def take_up(self, owned: Iterable[int]) -> None:
        """Take up partitions; however long their tables take to open, the group has only just given them."""
        self.join.assign(owned)
        self._seen_running = inf

    async def give_up(self) -> None:
        """Give up all partitions once a flush that has begun is in Kafka: whoever recovers them next must find it.

        Raises:
            TimeoutError: Kafka has not taken it in time.
        """
        async with asyncio.timeout(STALLED_S), self._lock:
            self.join.forget()

    def note_running(self) -> None:
        """Note that the process runs; it must be called more often than every STALLED_S.

        Time that this thread computes doesn't count: the consumer's own thread goes on telling the group that it lives,
        and a worker that ended itself over one large record would read it again and again.
        """
        now, computed = asyncio.get_running_loop().time(), thread_time()
        stood_still = now - self._seen_running - (computed - self._seen_computed)
        if stood_still > STALLED_S:
            raise StalledError(f"the worker stood still for {stood_still:.0f} s")
        self._seen_running, self._seen_computed = now, computed

    async def flush(self) -> None:
        """Write what has changed, then acknowledge the records that led to it.

        Raises:
            aiokafka.errors.KafkaError: Kafka has refused a record of the changelog.
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

    async def look(self) -> None:
        """Ask Kafka for the ends of the topics: which partitions are read to the end, and what may be deleted."""
        partitions = dict(self.join.partitions)
        topics = [TP(topic, number) for topic in (PREDICTIONS.name, FEEDBACK.name) for number in partitions]
        if not topics:
            return
        asked_at = self.clock.now()
        try:
            async with asyncio.timeout(_ASK_S):
                ends = await self.app.consumer.highwaters(*topics)
        except (KafkaError, TimeoutError) as error:
            logger(__name__).info("Kafka does not answer where its topics end", error=repr(error))
            return
        for number, partition in partitions.items():
            marks = partition.aggregates.marks
            partition.predictions_end = ends[TP(PREDICTIONS.name, number)]
            read = marks.predictions + 1 >= partition.predictions_end
            heard = marks.feedback + 1 >= ends[TP(FEEDBACK.name, number)]
            if read and heard:
                partition.aggregates.note_caught_up(asked_at)
            times = (asked_at if read else marks.predictions_sent_at, asked_at if heard else marks.feedback_sent_at)
            self._expire_until[number] = min(times) - _SLACK_S
