"""The journal and its publisher on real Kafka: everything acknowledged arrives, once."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from prometheus_client import REGISTRY

from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.ids import new_frame_id
from shared.journal import Acknowledged, Journal, JournalRecord, Position
from shared.journal_files import framed
from shared.publisher import REQUEST_LIMIT_BYTES, Publisher
from shared.topic_admin import ensure_topics
from shared.topics import FEEDBACK, LARGEST_RECORD_BYTES, PARKED_NAME, PREDICTIONS, Topic, cloud_event_headers

DEADLINE_S = 30
LIMIT = 128 * 1024**2


def append(journal: Journal, count: int) -> list[str]:
    ids = [new_frame_id(1.0) for _ in range(count)]
    for number, frame_id in enumerate(ids):
        value = FEEDBACK.encode(FeedbackFrame([FeedbackGiven(frame_id, number, 1, 2.0)]))
        journal.append(FEEDBACK.name, number % 4, None, cloud_event_headers(FEEDBACK, frame_id), value)
    return ids


async def records_in_topic(bootstrap: str) -> list[ConsumerRecord]:
    return await records_in(FEEDBACK, bootstrap)


async def records_in(topic: Topic[Any], bootstrap: str) -> list[ConsumerRecord]:
    consumer = AIOKafkaConsumer(topic.name, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    fetched: list[ConsumerRecord] = []
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        behind = {partition for partition, end in ends.items() if end > 0}
        while behind:
            for records in (await consumer.getmany(*behind, timeout_ms=500)).values():
                fetched += records
            behind = {p for p in behind if await consumer.position(p) < ends[p]}
    finally:
        await consumer.stop()
    return fetched


async def ids_in_topic(bootstrap: str) -> list[str]:
    headers = [dict(record.headers)["ce_id"] for record in await records_in_topic(bootstrap)]
    return [(header or b"").decode("ascii", "replace") for header in headers]


def publisher(journal: Journal, kafka: str) -> Publisher:
    return Publisher(journal, kafka, partitions=4, replication=1)


async def test_everything_flushed_arrives_once_and_leaves_the_journal(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 500)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
        ids += append(journal, 500)
        await shipping.drained(DEADLINE_S)
    arrived = await ids_in_topic(kafka)
    assert [arrived.count(record_id) for record_id in ids] == [1] * len(ids)
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
    arrived = await ids_in_topic(kafka)
    assert [arrived.count(record_id) for record_id in ids] == [1] * len(ids)
    again.close()


async def test_what_a_full_disk_gets_back_holds_up_nothing_that_comes_after(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 50)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
        for _ in range(3):
            journal._drop_sent()
            assert [path.stat().st_size for path in tmp_path.glob("*.log")] == [0]
            ids += append(journal, 50)
            await shipping.drained(DEADLINE_S)
    assert journal.unsent_bytes == 0
    journal._drop_sent()
    journal.close()  # what is noted lies in a segment that is gone
    again = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids += append(again, 50)
    async with publisher(again, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    arrived = await ids_in_topic(kafka)
    assert [arrived.count(record_id) for record_id in ids] == [1] * len(ids)
    assert again.unsent_bytes == 0
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


def append_one(journal: Journal, size: int, *, partition: int = 0) -> str:
    frame_id = new_frame_id(1.0)
    value = Random(size).randbytes(size)  # that gzip does not make small
    journal.append(FEEDBACK.name, partition, None, cloud_event_headers(FEEDBACK, frame_id), value)
    return frame_id


async def values_in_topic(bootstrap: str) -> dict[str, int]:
    """The size of each record by its event id."""
    sizes = {}
    for record in await records_in_topic(bootstrap):
        event_id = dict(record.headers).get("ce_id")
        if event_id is not None:
            sizes[event_id.decode("ascii", "replace")] = len(record.value)
    return sizes


async def test_the_largest_record_that_a_journal_takes_arrives(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    frame_id = append_one(journal, LARGEST_RECORD_BYTES)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    assert (await values_in_topic(kafka))[frame_id] == LARGEST_RECORD_BYTES
    assert journal.remarks == []
    journal.close()


class OldJournal(Journal):
    """A journal of before there was a limit to its records."""

    def append_all(self, records: Sequence[JournalRecord]) -> None:
        content = b"".join(map(framed, records))
        self._write(content)
        self.unsent_bytes += len(content)


@pytest.mark.parametrize("size", [REQUEST_LIMIT_BYTES + 1, 20 * 1024**2])
async def test_a_record_that_kafka_refuses_is_set_aside_and_the_rest_goes_on(kafka: str, tmp_path: Path, size: int):
    journal = OldJournal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 50)
    await journal.flush()
    refused = append_one(journal, size)
    await journal.flush()
    ids += append(journal, 50)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
        assert journal.unsent_bytes == 0
        assert refused in journal.remarks[0]
    arrived = await ids_in_topic(kafka)
    assert [arrived.count(record_id) for record_id in ids] == [1] * len(ids)
    assert refused not in arrived
    assert (tmp_path / "refused").stat().st_size > size
    journal.close()


@pytest.fixture
async def narrow(kafka: str) -> AsyncIterator[None]:
    """The topic takes records of 100 kB only."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)

    async def set_limit(size: int) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, FEEDBACK.name, {"max.message.bytes": str(size)})
        await admin.alter_configs([resource])

    await ensure_topics(kafka, partitions=4, replication=1)
    await admin.start()
    await set_limit(100_000)
    yield
    await set_limit(8 * 1024**2)
    await admin.close()


async def test_a_record_that_the_broker_refuses_is_set_aside_and_the_rest_goes_on(
    kafka: str, tmp_path: Path, narrow: None
):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids, refused = append(journal, 50), []
    for partition in (0, 0, 3):
        refused.append(append_one(journal, 200_000, partition=partition))
        ids += append(journal, 50)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    arrived = await ids_in_topic(kafka)
    assert [arrived.count(record_id) for record_id in ids] == [1] * len(ids)
    assert not set(arrived) & set(refused)
    assert "refused 3 records" in journal.remarks[0]
    journal.close()


async def test_headers_that_anybody_wrote_stop_nobody(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 10)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as stranger:
        for partition, value in ((0, b"\xff\xfe"), (1, None), (2, b"")):
            await stranger.send_and_wait(FEEDBACK.name, b"{}", partition=partition, headers=[("ce_id", value)])
    ids += append(journal, 10)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    arrived = await ids_in_topic(kafka)
    assert [arrived.count(record_id) for record_id in ids] == [1] * len(ids)
    journal.close()


@pytest.mark.parametrize("damaged", [b"", b"{"])
async def test_a_lost_note_of_what_was_acknowledged_sends_nothing_twice(kafka: str, tmp_path: Path, damaged: bytes):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 100)
    for _ in range(70):  # more than is looked up at a time
        ids.append(append_one(journal, 1024**2))
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    journal.close()
    (tmp_path / "acknowledged").write_bytes(damaged)
    again = Journal.open(tmp_path, limit_bytes=2 * LIMIT)
    assert again.acknowledged().lost
    ids += append(again, 100)
    async with publisher(again, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    arrived = await ids_in_topic(kafka)
    assert [arrived.count(record_id) for record_id in ids] == [1] * len(ids)
    again.close()


class OddJournal(Journal):
    """Fails in a way that nobody has thought of, as often as told."""

    failures = 2

    def read(self, start: Position, limit_bytes: int) -> Iterator[tuple[JournalRecord, Position]]:
        if self.failures:
            self.failures -= 1
            raise LookupError("odd")
        return super().read(start, limit_bytes)


async def test_what_nobody_has_thought_of_is_logged_and_tried_again(
    kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    journal = OddJournal.open(tmp_path, limit_bytes=LIMIT)
    ids = append(journal, 5)
    async with publisher(journal, kafka) as shipping:
        while journal.failures:
            await asyncio.sleep(0.01)
        assert REGISTRY.get_sample_value("contender_journal_stalled") == 1
        await shipping.drained(DEADLINE_S)
    assert REGISTRY.get_sample_value("contender_journal_stalled") == 0
    assert set(ids) <= set(await ids_in_topic(kafka))
    journal.close()


async def test_pauses_grow_until_something_is_acknowledged(tmp_path: Path, unused_tcp_port: int):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    append(journal, 5)
    async with Publisher(journal, f"127.0.0.1:{unused_tcp_port}", partitions=4, replication=1, drain_s=0.1) as shipping:
        while shipping._retry_s < 0.4:
            await asyncio.sleep(0.01)
        assert REGISTRY.get_sample_value("contender_journal_stalled") == 1
    journal.close()


def part(journal: Journal, frame_id: str, unit: str) -> None:
    block = PredictionBlock(model="m", version="v", task="binary", unit=[unit], time=[1.0], score=[0.5])
    headers = cloud_event_headers(PREDICTIONS, frame_id)
    value = PREDICTIONS.encode(PredictionFrame([block]))
    journal.append_all([JournalRecord(PREDICTIONS.name, 0, frame_id.encode(), headers, value, is_part=True)])


def units(record: ConsumerRecord) -> list[str]:
    return [unit for block in PREDICTIONS.decode(record.value).blocks for unit in block.unit]


async def test_the_parts_of_a_frame_are_one_record_whatever_lies_between_them(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    first, second = new_frame_id(1.0), new_frame_id(1.0)
    for number in range(3):
        part(journal, first, f"a{number}")
        append(journal, 1)
    part(journal, second, "b0")
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    sent = {dict(record.headers)["ce_id"].decode(): units(record) for record in await records_in(PREDICTIONS, kafka)}
    assert (sent[first], sent[second]) == (["a0", "a1", "a2"], ["b0"])
    journal.close()


async def test_a_frame_that_may_get_further_parts_waits_for_them(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    frames: list[list[str]] = []
    current = ""
    async with publisher(journal, kafka) as shipping:
        for number in range(400):  # some seconds of a writer that never pauses for the publisher
            if current.encode() not in journal.open_keys:
                current = new_frame_id(1.0)
                frames.append([])
                journal.open_keys.add(current.encode())
            frames[-1].append(f"{current}-{number}")
            part(journal, current, frames[-1][-1])
            await journal.flush()
            await asyncio.sleep(0.002)
        await shipping.drained(DEADLINE_S)
    own = {frame[0].partition("-")[0]: frame for frame in frames}
    sent = [record for record in await records_in(PREDICTIONS, kafka) if units(record)[0].partition("-")[0] in own]
    assert [units(record) for record in sent] == frames
    assert 3 < len(frames) < 100
    journal.close()


async def test_a_frame_that_was_sent_before_a_crash_is_not_sent_again_in_other_parts(kafka: str, tmp_path: Path):
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    frame_id = new_frame_id(1.0)
    for number in range(3):
        part(journal, frame_id, f"{frame_id}-{number}")
    noted = journal.acknowledged()
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    offsets = journal.acknowledged().offsets
    journal.acknowledge(msgspec.structs.replace(noted, offsets={name: at - 1 for name, at in offsets.items()}))
    journal.store_acknowledged()
    journal.close()
    journal = Journal.open(tmp_path, limit_bytes=LIMIT)
    async with publisher(journal, kafka) as shipping:
        await shipping.drained(DEADLINE_S)
    sent = [units(record) for record in await records_in(PREDICTIONS, kafka) if frame_id in units(record)[0]]
    assert sent == [[f"{frame_id}-{number}" for number in range(3)]]
    journal.close()
