"""Partitions of topics read from one offset up to another, outside of any consumer group."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

_REQUEST_MS = 10_000
_READ_MS = 500
_STALL_TIMEOUT_S = 30.0
"""How long to wait for records that a topic holds."""

Offsets = Mapping[int, int]
"""An offset by partition."""


@dataclass(frozen=True, slots=True)
class TopicReader:
    """Reads partitions of one topic. Raises KafkaError where Kafka does not answer."""

    consumer: AIOKafkaConsumer
    partitions: Sequence[TopicPartition]

    async def ends(self) -> dict[int, int]:
        """The offset that the next record gets, by partition."""
        return {at.partition: end for at, end in (await self.consumer.end_offsets(self.partitions)).items()}

    def read(self, start: Offsets, ends: Offsets, most: int | None = None) -> AsyncIterator[list[ConsumerRecord]]:
        """The records from `start` to before `ends`; see `read_between`."""
        starts = {at: start.get(at.partition, 0) for at in self.partitions}
        return read_between(self.consumer, starts, {at: ends[at.partition] for at in self.partitions}, most)


@asynccontextmanager
async def open_reader(kafka: str, topic: str, partitions: Sequence[int]) -> AsyncIterator[TopicReader]:
    """A reader of some partitions of a topic.

    Args:
        kafka: bootstrap servers, comma-separated.
        topic: its name.
        partitions: their numbers.
    """
    async with open_consumer(kafka) as consumer:
        assigned = [TopicPartition(topic, number) for number in partitions]
        consumer.assign(assigned)
        yield TopicReader(consumer, assigned)


@asynccontextmanager
async def open_consumer(kafka: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, for the length of a block.

    Args:
        kafka: bootstrap servers, comma-separated.
        topics: all their partitions are assigned; default: the caller assigns some.
    """
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # an offset may be gone by retention; nothing behind it may be skipped
        request_timeout_ms=_REQUEST_MS,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        try:
            await consumer.stop()  # one that could not start holds connections, too
        except asyncio.CancelledError:
            # aiokafka 0.14 lets the cancellation of its own tasks that had not begun escape; ours must go on.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise


async def read_between(
    consumer: AIOKafkaConsumer,
    start: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    most: int | None = None,
) -> AsyncIterator[list[ConsumerRecord]]:
    """The records of assigned partitions from `start` to before `ends`, some at a time.

    Args:
        consumer: has these partitions assigned.
        start: the offset where each begins, or the first that Kafka still holds.
        ends: the offset where each ends.
        most: records at a time, at most; default: as many as Kafka sends.

    Raises:
        TimeoutError: Kafka holds further records and has not sent any for half a minute.
    """
    first = await consumer.beginning_offsets(list(start))
    behind = [at for at, offset in start.items() if max(first[at], offset) < ends[at]]
    for at in behind:
        consumer.seek(at, max(first[at], start[at]))
    while behind:
        async with asyncio.timeout(_STALL_TIMEOUT_S):
            records = await _next_records(consumer, behind, most)
        yield [record for record in records if record.offset < ends[TopicPartition(record.topic, record.partition)]]
        behind = [at for at in behind if await consumer.position(at) < ends[at]]


async def _next_records(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], most: int | None
) -> list[ConsumerRecord]:
    while True:
        by_partition = await consumer.getmany(*partitions, timeout_ms=_READ_MS, max_records=most)
        if records := [record for of_partition in by_partition.values() for record in of_partition]:
            return records
