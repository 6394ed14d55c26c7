"""Ships a journal to Kafka in order, so that each of its frames is in its topic once.

A producer's idempotence covers one session only. So at the start of every session, and after every failure, the
publisher first reads the tail of each topic-partition from the last offset that it knows was acknowledged, and skips
the journal records whose event id already lies there.

The parts of a record lie in the journal as they were written, and are sent as one. Which parts those are is settled
before the publisher reads the first of them, so that after a crash the same record is sent again.

A record that Kafka refuses for good must not hold up those behind it: after a refusal the publisher sends records one
by one, and a record that is refused alone goes to the journal's file `refused`.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)
from aiokafka.structs import RecordMetadata
from prometheus_client import Counter, Gauge

from shared.background import run_forever
from shared.events import joined_frames
from shared.journal import Acknowledged, Journal, JournalFull, JournalRecord, Position
from shared.logs import logger
from shared.retention import Retention
from shared.settings import Settings
from shared.topic_admin import TopicError, ensure_topics
from shared.topic_lookup import ids_between, name_of_partition, partition_named
from shared.topic_reading import open_consumer
from shared.topics import LARGEST_RECORD_BYTES

REQUEST_LIMIT_BYTES = LARGEST_RECORD_BYTES + 64 * 1024
"""What the producer takes: the largest value of a record with its key and headers."""

_CHUNK_BYTES = 1024**2
# How much of the journal is looked up in the topics at a time. When a session ends, it has sent the beginning of what
# is not acknowledged: a chunk or little more.
_WINDOW_BYTES = 64 * _CHUNK_BYTES
LINGER_S = 0.05
"""Seconds for which records are gathered: nobody waits for them, and a request to Kafka costs a prediction's time."""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
# A broker that is gone for longer than this fails the session, and the next one reconciles.
_REQUEST_MS = 10_000
# An idempotent producer never gives up by itself: after this long without an acknowledgement the log says so.
_OVERDUE_S = 30.0
# Kafka's answers about a record that it will never take.
REFUSALS = (
    CorruptRecordException,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)
PUBLISHED = Counter("contender_journal_published_total", "Journal records that Kafka has acknowledged", ["topic"])
REFUSED = Counter("contender_journal_refused_total", "Journal records that Kafka refused and were set aside", ["topic"])
SESSIONS = Counter(
    "contender_journal_sessions_total", "Producer sessions begun: one at start, and one after each failure"
)
STALLED = Gauge("contender_journal_stalled", "1 from a failed producer session until Kafka acknowledges again")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Records that are sent together, the position after them, and whether there were few."""

    records: list[JournalRecord]
    end: Position
    is_short: bool


class Publisher:
    """Ships one journal in the background.

    Args:
        journal: what to ship; the publisher is its one reader.
        bootstrap: Kafka bootstrap servers.
        partitions: partitions of the topics, when they are missing and are created here.
        replication: replicas of the topics, when they are missing.
        retention: how much the topics keep; None leaves that to the cluster.
        drain_s: longest wait on exit for what is still unsent; what is not sent stays in the journal.
    """

    def __init__(
        self,
        journal: Journal,
        bootstrap: str,
        *,
        partitions: int,
        replication: int,
        retention: Retention | None = None,
        drain_s: float = 5.0,
    ) -> None:
        self._journal = journal
        self._partitions = partitions
        self._replication = replication
        self._retention = retention
        self._bootstrap = bootstrap
        self._drain_s = drain_s
        self._task: asyncio.Task[None] | None = None
        self._at = journal.acknowledged()
        self._suspect_until = Position(0, 0)
        self._set_aside_ids: set[bytes] = set()
        self._retry_s = _FIRST_RETRY_S
        self._stalled = False
        self._writing: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._log = logger(__name__)

    @classmethod
    def from_settings(cls, journal: Journal, settings: Settings) -> Self:
        """The publisher of a service's journal."""
        return cls(
            journal,
            settings.kafka,
            partitions=settings.partitions,
            replication=settings.replication,
            retention=settings.retention,
        )

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(run_forever(self._ship_until_failure, 0.0))
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(TimeoutError, JournalFull):
            await self.drained(self._drain_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, *self._writing, return_exceptions=True)

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

    async def _ship_until_failure(self) -> None:
        """One producer session, and a pause that grows until Kafka acknowledges again."""
        try:
            await self._attempt()
        except (KafkaError, OSError, TopicError) as error:
            self._log.warning("publisher waits for Kafka", error=repr(error), retry_s=self._retry_s)
        except Exception:  # noqa: BLE001 - logged here, so that the pause grows after it too
            self._log.exception("publisher failed", retry_s=self._retry_s)
        self._set_stalled(stalled=True)
        await asyncio.sleep(self._retry_s)
        self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)

    async def _attempt(self) -> None:
        """One producer session, until it fails."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            compression_type="gzip",
            request_timeout_ms=_REQUEST_MS,
            max_request_size=REQUEST_LIMIT_BYTES,
        )
        try:
            await ensure_topics(
                self._bootstrap,
                partitions=self._partitions,
                replication=self._replication,
                retention=self._retention,
            )
            await producer.start()
            SESSIONS.inc()
            await self._session(producer)
        finally:
            with suppress(KafkaError, OSError):
                await producer.stop()

    async def _session(self, producer: AIOKafkaProducer) -> None:
        present, looked_up = await self._already_sent()
        while True:
            self._journal.appended.clear()
            start = Position(self._at.segment, self._at.position)
            # After a refusal it sends one record at a time, until it has passed the refused one.
            await self._journal.close_records()
            is_suspect = start < self._suspect_until
            chunk = await asyncio.to_thread(self._read, start, 1 if is_suspect else _CHUNK_BYTES)
            if not chunk.records:
                self._idle.set()
                self._set_stalled(stalled=False)
                await self._journal.appended.wait()
                await asyncio.sleep(LINGER_S)
                continue
            if present and chunk.end > looked_up:
                present, looked_up = await self._already_sent()
            await self._note_first_offsets(producer, chunk.records)
            skipped = present | self._set_aside_ids
            records = [record for record in chunk.records if record.event_id not in skipped]
            sent: dict[str, int] = {}
            for batch in [[record] for record in records] if is_suspect else [records]:
                try:
                    sent |= await self._ship(producer, batch)
                except REFUSALS as error:
                    self._suspect_until = max(self._suspect_until, chunk.end)
                    if len(batch) == 1:
                        await self._set_aside(batch[0], error)
                    raise  # a refusal leaves a gap in the producer's numbers, so a new session begins
            await self._acknowledge(chunk.end, {**self._at.offsets, **sent})
            if chunk.is_short:
                await asyncio.sleep(LINGER_S)

    def _read(self, start: Position, limit_bytes: int) -> _Chunk:
        """The next records, each with all of its parts: about `limit_bytes`, and no record that may get further parts.

        The parts of one record come before those of the next one; only records without parts may lie between them.
        """
        parts: dict[bytes, list[JournalRecord]] = {}
        order: list[bytes | JournalRecord] = []
        size, end = 0, start
        for record, position in self._journal.read(start, _WINDOW_BYTES):
            key = record.key if record.is_part else None
            begins = key is not None and key not in parts
            if key in self._journal.open_keys or (size >= limit_bytes and (begins or not parts)):
                break
            if key is None:
                order.append(record)
            else:
                if begins:
                    order.append(key)
                parts.setdefault(key, []).append(record)
            size, end = size + len(record.value), position
        records = [_joined(parts[entry]) if isinstance(entry, bytes) else entry for entry in order]
        return _Chunk(records, end, is_short=size < _CHUNK_BYTES)

    async def _acknowledge(self, end: Position, offsets: dict[str, int]) -> None:
        self._at = Acknowledged(end.segment, end.byte, offsets, self._at.lost)
        self._journal.acknowledge(self._at)
        self._set_aside_ids.clear()
        self._retry_s = _FIRST_RETRY_S
        self._set_stalled(stalled=False)
        await self._store()

    async def _store(self) -> None:
        try:
            await self._in_thread(self._journal.store_acknowledged)
        except OSError as error:  # sending goes on, because it frees the disk; the next session looks up more
            self._log.warning("publisher can't note what was acknowledged", error=repr(error))

    async def _set_aside(self, record: JournalRecord, error: KafkaError) -> None:
        await self._in_thread(self._journal.refuse, record)
        self._set_aside_ids.add(record.event_id)
        REFUSED.labels(record.topic).inc()
        self._log.error(
            "Kafka refuses a record, which was set aside",
            topic=record.topic,
            partition=record.partition,
            event_id=record.event_id.decode("ascii", "replace"),
            size_bytes=len(record.value),
            error=repr(error),
        )

    async def _in_thread(self, write: Callable[..., None], *arguments: object) -> None:
        """Write to the journal's folder beside the loop; a write that has begun ends before the journal closes."""
        task = asyncio.create_task(asyncio.to_thread(write, *arguments))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    def _set_stalled(self, *, stalled: bool) -> None:
        if self._stalled and not stalled:
            self._log.info("publisher works again")
        self._stalled = stalled
        STALLED.set(stalled)

    async def _ship(self, producer: AIOKafkaProducer, records: list[JournalRecord]) -> dict[str, int]:
        """Send records and return the last offset by topic-partition.

        Raises:
            KafkaError: not all of them were acknowledged; the next session looks up which ones were.
        """
        overdue = asyncio.get_running_loop().call_later(_OVERDUE_S, self._warn_overdue)
        try:
            results = await _sent(producer, records)
        finally:
            overdue.cancel()
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            # After a refusal the records behind it fail as well, for their numbers are out of order.
            raise next((failure for failure in failures if isinstance(failure, REFUSALS)), failures[0])
        offsets: dict[str, int] = {}
        for record, metadata in zip(records, results, strict=True):
            offsets[name_of_partition(record.topic, record.partition)] = metadata.offset
            PUBLISHED.labels(record.topic).inc()
        return offsets

    def _warn_overdue(self) -> None:
        # The session is not ended: its producer goes on with the same numbers, so that nothing arrives twice.
        self._log.warning("publisher has no acknowledgement from Kafka", after_s=_OVERDUE_S)
        self._set_stalled(stalled=True)

    async def _note_first_offsets(self, producer: AIOKafkaProducer, records: list[JournalRecord]) -> None:
        """Store where a partition ends before the first send to it, so that a later session knows where to look."""
        names = {(record.topic, record.partition) for record in records}
        unknown = [pair for pair in names if name_of_partition(*pair) not in self._at.offsets]
        if not unknown:
            return
        for topic, _ in unknown:
            await producer.partitions_for(topic)  # waits for the topic's metadata
        async with open_consumer(self._bootstrap) as consumer:
            ends = await consumer.end_offsets([TopicPartition(*pair) for pair in unknown])
        # Where it is not known what was sent, a later session has to look from the beginning.
        last = {name_of_partition(at.topic, at.partition): -1 if self._at.lost else end - 1 for at, end in ends.items()}
        self._at = msgspec.structs.replace(self._at, offsets={**self._at.offsets, **last})
        self._journal.acknowledge(self._at)
        await self._store()

    async def _already_sent(self) -> tuple[set[bytes], Position]:
        """Event ids of the journal's next records that lie in the topics, and the position up to which it looked.

        Records go out in order: if none of these was sent, no later record was.
        """
        start = Position(self._at.segment, self._at.position)
        wanted, partitions, end = await asyncio.to_thread(self._window, start)
        lost = dict.fromkeys(partitions, -1) if self._at.lost else {}
        known = {
            partition_named(name): offset + 1
            for name, offset in {**lost, **self._at.offsets}.items()
            if name in partitions
        }
        if not known:
            return set(), end
        async with open_consumer(self._bootstrap) as consumer:
            present = await ids_between(consumer, known, wanted)
        if not present and self._at.lost:
            self._at = msgspec.structs.replace(self._at, lost=False)
        return present, end

    def _window(self, start: Position) -> tuple[set[bytes], set[str], Position]:
        ids: set[bytes] = set()
        partitions: set[str] = set()
        end = start
        for record, end in self._journal.read(start, _WINDOW_BYTES):  # noqa: B007 - the last one is returned
            ids.add(record.event_id)
            partitions.add(name_of_partition(record.topic, record.partition))
        return ids - {b""}, partitions, end


async def _sent(producer: AIOKafkaProducer, records: list[JournalRecord]) -> list[Any]:
    """Each record's metadata or error, in order; ends with the error of a record that the producer refuses."""
    sent: list[asyncio.Future[RecordMetadata]] = []
    refused: list[KafkaError] = []
    try:
        for record in records:
            future = await producer.send(
                record.topic,
                value=record.value,
                key=record.key,
                partition=record.partition,
                headers=record.headers,
            )
            sent.append(future)
    except KafkaError as error:
        refused.append(error)
    return [*await asyncio.gather(*sent, return_exceptions=True), *refused]


def _joined(parts: list[JournalRecord]) -> JournalRecord:
    """The record of all parts: only frames of predictions have several."""
    value = joined_frames([part.value for part in parts])
    return msgspec.structs.replace(parts[0], value=value, is_part=False)
