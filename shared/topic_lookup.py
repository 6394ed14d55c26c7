"""Looks up which events lie in topics already."""

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.topic_reading import read_between


async def ids_between(consumer: AIOKafkaConsumer, known: dict[TopicPartition, int], wanted: set[bytes]) -> set[bytes]:
    """The wanted event ids that lie in topics between the known offsets and the present ends.

    Raises:
        TimeoutError: Kafka sends nothing for too long.
    """
    consumer.assign(list(known))
    present: set[bytes] = set()
    async for records in read_between(consumer, known, await consumer.end_offsets(list(known))):
        for record in records:
            # Anybody may have written here: no header is taken for text, and one may be null.
            present.update(value for name, value in record.headers if name == "ce_id" and value in wanted)
    return present


def name_of_partition(topic: str, partition: int) -> str:
    """The name under which the journal keeps an offset."""
    return f"{topic}:{partition}"


def partition_named(name: str) -> TopicPartition:
    """The partition of that name."""
    topic, _, partition = name.rpartition(":")
    return TopicPartition(topic, int(partition))
