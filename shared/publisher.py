"""Ships a journal to Kafka in order, so that each of its frames is in its topic once.

A producer's idempotence covers one session only. So at the start of every session, and after every failure, the
publisher first reads the tail of each topic-partition from the last offset that it knows was acknowledged, and skips
the journal records whose event id already lies there.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from shared.journal import Acknowledged, Journal, JournalRecord, Position
from shared.logs import logger
from shared.topics import TopicError, ensure_topics

_CHUNK_BYTES = 1024**2
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
_READ_MS = 500
# A broker that is gone for longer than this fails the session, and the next one reconciles.
_REQUEST_MS = 10_000
PUBLISHED = Counter("contender_journal_published_total", "Journal records that Kafka has acknowledged", ["topic"])
SESSIONS = Counter("contender_journal_sessions_total", "Producer sessions begun: one, and one per failure")


class Publisher:
    """A background task for one journal.

    Args:
        journal: what to ship; the publisher is its one reader.
        bootstrap: Kafka bootstrap servers.
        partitions: partitions of the topics, when they are missing and are created here.
        replication: replicas of the topics, when they are missing.
        drain_s: longest wait on exit for what is still unsent; what is not sent stays in the journal.
    """

    def __init__(
        self, journal: Journal, bootstrap: str, *, partitions: int, replication: int, drain_s: float = 5.0
    ) -> None:
        self._journal = journal
        self._partitions = partitions
        self._replication = replication
        self._bootstrap = bootstrap
        self._drain_s = drain_s
        self._task: asyncio.Task[None] | None = None
        self._at = journal.acknowledged()
        self._idle = asyncio.Event()
        self._log = logger(__name__)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TimeoutError):
            await self.drained(self._drain_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def drained(self, timeout_s: float) -> None:
        """Wait until everything flushed so far is in Kafka.

        Raises:
            TimeoutError: it is not, after that many seconds.
        """
        await self._journal.flush()
        async with asyncio.timeout(timeout_s):
            while self._journal.unsent_bytes > 0:
                self._journal.appended.set()
                self._idle.clear()
                await self._idle.wait()

    async def _run(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                enable_idempotence=True,
                compression_type="gzip",
                request_timeout_ms=_REQUEST_MS,
                max_request_size=16 * _CHUNK_BYTES,
            )
            try:
                await ensure_topics(self._bootstrap, partitions=self._partitions, replication=self._replication)
                await producer.start()
                SESSIONS.inc()
                retry_s = _FIRST_RETRY_S
                await self._session(producer)
            except (KafkaError, OSError, TopicError) as error:
                self._log.warning("publisher waits for Kafka", error=repr(error), retry_s=retry_s)
            finally:
                with suppress(KafkaError, OSError):
                    await producer.stop()
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _session(self, producer: AIOKafkaProducer) -> None:
        present = await self._already_sent()
        while True:
            self._journal.appended.clear()
            start = Position(self._at.segment, self._at.position)
            chunk = list(self._journal.read(start, _CHUNK_BYTES))
            if not chunk:
                self._idle.set()
                await self._journal.appended.wait()
                continue
            await self._note_first_offsets(producer, [record for record, _ in chunk])
            fresh = [record for record, _ in chunk if _event_id(record) not in present]
            offsets = dict(self._at.offsets)
            offsets.update(await self._ship(producer, fresh))
            before, self._at = self._at, Acknowledged(chunk[-1][1].segment, chunk[-1][1].byte, offsets)
            self._journal.acknowledge(self._at, self._journal.bytes_between(before, self._at))

    async def _ship(self, producer: AIOKafkaProducer, records: list[JournalRecord]) -> dict[str, int]:
        sent = [
            await producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=record.headers,
            )
            for record in records
        ]
        offsets: dict[str, int] = {}
        for record, metadata in zip(records, await asyncio.gather(*sent), strict=True):
            offsets[_name(record.topic, record.partition)] = metadata.offset
            PUBLISHED.labels(record.topic).inc()
        return offsets

    async def _note_first_offsets(self, producer: AIOKafkaProducer, records: list[JournalRecord]) -> None:
        """Store where a partition ends before the first send to it, so that a later session knows where to look."""
        names = {(record.topic, record.partition) for record in records}
        unknown = [pair for pair in names if _name(*pair) not in self._at.offsets]
        if not unknown:
            return
        for topic, _ in unknown:
            await producer.partitions_for(topic)  # waits for the topic's metadata
        async with _Reader(self._bootstrap) as consumer:
            ends = await consumer.end_offsets([TopicPartition(*pair) for pair in unknown])
        found = {_name(partition.topic, partition.partition): end - 1 for partition, end in ends.items()}
        self._at = msgspec.structs.replace(self._at, offsets={**self._at.offsets, **found})
        self._journal.acknowledge(self._at, 0)

    async def _already_sent(self) -> frozenset[str]:
        """Event ids in the topics after the last acknowledged offsets."""
        found: set[str] = set()
        known = {_partition(name): offset + 1 for name, offset in self._at.offsets.items()}
        if not known:
            return frozenset()
        async with _Reader(self._bootstrap) as consumer:
            consumer.assign(list(known))
            ends = await consumer.end_offsets(list(known))
            for partition, offset in known.items():
                consumer.seek(partition, offset)
            behind = {partition for partition, offset in known.items() if offset < ends[partition]}
            while behind:
                batches = await consumer.getmany(*behind, timeout_ms=_READ_MS)
                for records in batches.values():
                    for record in records:
                        found.update(value.decode() for name, value in record.headers if name == "ce_id")
                positions = {partition: await consumer.position(partition) for partition in behind}
                behind = {partition for partition in behind if positions[partition] < ends[partition]}
        return frozenset(found)


class _Reader:
    """A consumer without a group, for the length of a block."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, request_timeout_ms=_REQUEST_MS
        )

    async def __aenter__(self) -> AIOKafkaConsumer:
        await self._consumer.start()
        return self._consumer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._consumer.stop()
        except asyncio.CancelledError:
            # aiokafka 0.14 lets the cancellation of its own tasks that had not begun escape; ours must go on.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise


def _event_id(record: JournalRecord) -> str:
    return next((value.decode() for name, value in record.headers if name == "ce_id"), "")


def _name(topic: str, partition: int) -> str:
    return f"{topic}:{partition}"


def _partition(name: str) -> TopicPartition:
    topic, _, partition = name.rpartition(":")
    return TopicPartition(topic, int(partition))
