"""Looks up which events lie in topics already."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

_READ_MS = 500
_REQUEST_MS = 10_000
_STALL_TIMEOUT_S = 30.0
"""How long to wait for records that a topic holds."""


async def ids_between(consumer: AIOKafkaConsumer, known: dict[TopicPartition, int], wanted: set[bytes]) -> set[bytes]:
    """Those of the wanted event ids that lie in topics from known offsets up to the present ends.

    Raises:
        KafkaTimeoutError: nothing comes for too long.
    """
    consumer.assign(list(known))
    ends = await consumer.end_offsets(list(known))
    for partition, offset in known.items():
        consumer.seek(partition, offset)
    behind = {partition for partition, offset in known.items() if offset < ends[partition]}
    present: set[bytes] = set()
    clock = asyncio.get_running_loop().time
    read_at = clock()
    while behind:
        for records in (await consumer.getmany(*behind, timeout_ms=_READ_MS)).values():
            read_at = clock()
            for record in records:
                # Anybody may have written here: no header is taken for text, and one may be null.
                present.update(value for name, value in record.headers if name == "ce_id" and value in wanted)
        behind = {partition for partition in behind if await consumer.position(partition) < ends[partition]}
        if behind and clock() - read_at > _STALL_TIMEOUT_S:
            raise KafkaTimeoutError(f"nothing is read from {sorted(behind)}")
    return present


@asynccontextmanager
async def reader(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, for the length of a block."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # an offset may be gone by retention; nothing behind it may be skipped
        request_timeout_ms=_REQUEST_MS,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        try:
            await consumer.stop()
        except asyncio.CancelledError:
            # aiokafka 0.14 lets the cancellation of its own tasks that had not begun escape; ours must go on.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise


def name_of_partition(topic: str, partition: int) -> str:
    """The name under which the journal keeps an offset."""
    return f"{topic}:{partition}"


def partition_named(name: str) -> TopicPartition:
    """The partition of that name."""
    topic, _, partition = name.rpartition(":")
    return TopicPartition(topic, int(partition))
