"""The journal and its publisher on real Kafka: everything acknowledged arrives, once."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer

from shared.events import FeedbackFrame, FeedbackGiven
from shared.ids import new_frame_id
from shared.journal import Acknowledged, Journal
from shared.publisher import Publisher
from shared.topics import FEEDBACK, PARKED_NAME, cloud_event_headers

DEADLINE_S = 30
LIMIT = 64 * 1024**2


def append(journal: Journal, count: int) -> list[str]:
    ids = [new_frame_id(1.0) for _ in range(count)]
    for number, frame_id in enumerate(ids):
        value = FEEDBACK.encode(FeedbackFrame([FeedbackGiven(frame_id, number, 1, 2.0)]))
        journal.append(FEEDBACK.name, number % 4, None, cloud_event_headers(FEEDBACK, frame_id), value)
    return ids


async def ids_in_topic(bootstrap: str) -> list[str]:
    consumer = AIOKafkaConsumer(FEEDBACK.name, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[str] = []
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        behind = {partition for partition, end in ends.items() if end > 0}
        while behind:
            for records in (await consumer.getmany(*behind, timeout_ms=500)).values():
                found += [dict(record.headers)["ce_id"].decode() for record in records]
            behind = {p for p in behind if await consumer.position(p) < ends[p]}
    finally:
        await consumer.stop()
    return found


def publisher(journal: Journal, kafka: str) -> Publisher:
    return Publisher(journal, kafka, partitions=4, replication=1)


async def test_everything_flushed_arrives_once_and_leaves_the_journal(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 500)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
        ids += append(journal, 500)
        await shipping.drained(DEADLINE_S)
    found = await ids_in_topic(kafka)
    assert [found.count(one) for one in ids] == [1] * len(ids)
    assert journal.unsent_bytes == 0
    journal.close()


async def test_what_was_sent_but_not_noted_before_a_crash_is_not_sent_again(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 100)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
        noted = journal.acknowledged()
        ids += append(journal, 100)
        await shipping.drained(DEADLINE_S)
    journal.close()
    # The crash: the second hundred is in Kafka, but the note of it never reached the disk.
    (tmp_path / "acknowledged").write_bytes(msgspec.json.encode(noted))
    again = Journal.open(tmp_path, limit_bytes=LIMIT)
    assert again.unsent_bytes > 0
    ids += append(again, 10)
    async with publisher(again, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    found = await ids_in_topic(kafka)
    assert [found.count(one) for one in ids] == [1] * len(ids)
    again.close()


async def test_an_unreachable_kafka_delays_and_loses_nothing(tmp_path: Path, unused_tcp_port: int):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    append(journal, 5)
    shipping = Publisher(journal, f"127.0.0.1:{unused_tcp_port}", partitions=4, replication=1, drain_s=0.1)
    async with shipping:
        with pytest.raises(TimeoutError):
            await shipping.drained(0.5)
    assert journal.unsent_bytes > 0
    assert journal.acknowledged() == Acknowledged()
    journal.close()


async def test_parked_has_a_topic_from_the_start(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    append(journal, 1)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert PARKED_NAME in await consumer.topics()
    finally:
        await consumer.stop()
    journal.close()
