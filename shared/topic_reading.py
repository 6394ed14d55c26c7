"""Partitions of a topic read from one offset up to another, outside of any consumer group."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

_REQUEST_MS = 10_000
_READ_MS = 500
_PROGRESS_S = 30.0
"""How long to wait for records that the topic holds."""

Offsets = Mapping[int, int]
"""An offset by partition."""


@dataclass(frozen=True, slots=True)
class TopicReader:
    """Reads partitions. Raises KafkaError where Kafka does not answer."""

    consumer: AIOKafkaConsumer
    partitions: Sequence[TopicPartition]

    async def ends(self) -> dict[int, int]:
        """By partition the offset that its next record gets."""
        return {at.partition: end for at, end in (await self.consumer.end_offsets(self.partitions)).items()}

    async def read(
        self, start: Offsets, ends: Offsets, most: int | None = None
    ) -> AsyncIterator[Sequence[ConsumerRecord]]:
        """The records from `start` to before `ends`, some at a time.

        Args:
            start: where to begin; a partition that it lacks begins at the first record that Kafka holds.
            ends: where each partition ends.
            most: of records at a time.

        Raises:
            TimeoutError: Kafka holds further records and has not sent any for half a minute.
        """
        first = await self.consumer.beginning_offsets(self.partitions)
        behind = []
        for at in self.partitions:
            offset = max(first[at], start.get(at.partition, 0))
            if offset < ends[at.partition]:
                self.consumer.seek(at, offset)
                behind.append(at)
        while behind:
            async with asyncio.timeout(_PROGRESS_S):
                records = await self._some(behind, most)
            yield [record for record in records if record.offset < ends[record.partition]]
            behind = [at for at in behind if await self.consumer.position(at) < ends[at.partition]]

    async def _some(self, partitions: Sequence[TopicPartition], most: int | None) -> list[ConsumerRecord]:
        while True:
            answer = await self.consumer.getmany(*partitions, timeout_ms=_READ_MS, max_records=most)
            if records := [record for of_partition in answer.values() for record in of_partition]:
                return records


@asynccontextmanager
async def open_reader(kafka: str, topic: str, partitions: Sequence[int]) -> AsyncIterator[TopicReader]:
    """A reader of some partitions of a topic.

    Args:
        kafka: bootstrap servers, comma-separated.
        topic: its name.
        partitions: their numbers.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, request_timeout_ms=_REQUEST_MS)
    try:
        await consumer.start()
        assigned = [TopicPartition(topic, number) for number in partitions]
        consumer.assign(assigned)
        yield TopicReader(consumer, assigned)
    finally:
        await consumer.stop()  # one that could not start holds connections, too
