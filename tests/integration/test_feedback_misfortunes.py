"""A feedback worker on real Kafka: it is sent what no producer should send, or its Kafka dies while it starts."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from redis.asyncio import Redis

from contender.contracts.feedback_service import Counts
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from services.feedback_service.domain.reports import HISTORY_LIMIT
from services.feedback_service.experiments import ExperimentsFromKafka
from services.feedback_service.store import RedisSnapshots
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.ids import new_frame_id
from shared.streams import PARKED_BYTES
from shared.topic_admin import ensure_topics
from shared.topics import EXPERIMENTS, FEEDBACK, PARKED_NAME, PREDICTIONS, cloud_event_headers
from tests.experiment_revisions import revision

DEADLINE_S = 40.0
PATIENCE_S = 6.0
AWAY_S = 8.0
"""Longer than the session of a worker in its group."""

REVISION = revision(variants=[])


@pytest.fixture
def own_kafka(kafka_jars: list[Path], tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of its own, which may be killed."""
    port, controller_port = free_ports(2)
    broker = KafkaBroker(tmp_path / "kafka", port, controller_port, kafka_jars, heap="512m")
    broker.start()
    try:
        broker.wait_ready(60)
        yield broker
    finally:
        broker.kill()


@dataclass
class Worker:
    """A worker process that the test starts, asks and ends."""

    environment: dict[str, str]
    log: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        environment = {**os.environ, **self.environment, "CONTENDER_FEEDBACK_SERVICE_PORT": str(self.port - 10)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.feedback_service", "worker"], env=environment, stderr=log
            )

    def reasons(self) -> str | None:
        """Why it is not ready; empty when it is, None when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                return ""
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)["detail"]
        except OSError:
            return None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@pytest.fixture
def worker(own_kafka: KafkaBroker, valkey: str, tmp_path: Path) -> Iterator[Worker]:
    environment = {
        "CONTENDER_KAFKA": own_kafka.bootstrap,
        "CONTENDER_REDIS": valkey.removesuffix("/0") + "/6",
        "CONTENDER_DATA": str(tmp_path / "data"),
        "CONTENDER_PARTITIONS": "1",
        "CONTENDER_WORKER_PATIENCE_S": str(PATIENCE_S),
    }
    worker = Worker(environment, tmp_path / "worker.log", free_ports(1)[0])
    yield worker
    if worker.process is not None:
        worker.process.kill()
        worker.process.wait(60)


async def until(holds: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def producing(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", max_request_size=8 * 1024**2)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def counted(worker: Worker, wanted: Callable[[Counts], bool]) -> Counts:
    """The counts of the only partition, once they are as wanted; the worker must live."""
    redis = Redis.from_url(worker.environment["CONTENDER_REDIS"])
    counts = Counts()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not wanted(counts):
                assert worker.alive, worker.log.read_text()[-3000:]
                await asyncio.sleep(0.1)
                counts = sum(
                    (snapshot.counts for snapshot in await RedisSnapshots(redis, partitions=1).read("e")), Counts()
                )
    except TimeoutError:
        pytest.fail(f"found {counts}")
    finally:
        await redis.flushdb()
        await redis.aclose()
    return counts


async def parked(kafka: str) -> dict[str, tuple[int, int]]:
    """By reason the bytes kept of a parked record and its true length."""
    consumer = AIOKafkaConsumer(PARKED_NAME, bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        lengths: dict[str, tuple[int, int]] = {}
        read = 0
        while read < sum(ends.values()):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                read += len(records)
                for record in records:
                    headers = dict(record.headers)
                    lengths[headers["reason"].decode()] = (len(record.value), int(headers["length"]))
    finally:
        await consumer.stop()
    return lengths


def block(**changes: object) -> PredictionBlock:
    fields = {
        "model": "m",
        "version": "v",
        "task": "binary",
        "classes": [0, 1],
        "experiment": "e",
        "variant": "champion",
        "served_variant": "champion",
        "window_s": 100.0,
        "unit": ["u"],
        "time": [0.0],
        "score": [0.5],
    }
    return PredictionBlock(**{**fields, **changes})


@pytest.mark.timeout(150)
async def test_nothing_that_is_sent_ends_the_worker(own_kafka: KafkaBroker, worker: Worker):
    kafka = own_kafka.bootstrap
    await ensure_topics(kafka, partitions=1, replication=1)
    worker.start()
    frame_id = new_frame_id(time.time())
    wide = block(task="multiclass", classes=list(range(1000)), unit=["u"] * 1100, time=[0.0] * 1100)
    large = PREDICTIONS.encode(PredictionFrame([wide])).replace(
        b"[0.5]", b"[%s]" % b",".join([b"[%s]" % b",".join([b"0"] * 1000)] * 1100)
    )
    fits = PredictionFrame(
        [
            block(
                task="multiclass",
                classes=[0, 1, 2],
                unit=["u"] * 200_000,
                time=[0.0] * 200_000,
                score=[[0.2, 0.3, 0.5]] * 200_000,
            )
        ]
    )
    async with producing(kafka) as producer:

        async def send(topic: str, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
            await producer.send_and_wait(topic, value, key=b"0", partition=0, headers=headers)

        named = cloud_event_headers(PREDICTIONS, frame_id)
        for topic in (PREDICTIONS.name, FEEDBACK.name):
            for value in (b'{"x":' + b"[" * 100_000, b"\x00" * 2_000_000, b'{"events":[{"frame_id":"\xff', None):
                await send(topic, value, named)
        good = PREDICTIONS.encode(PredictionFrame([block()]))
        await send(PREDICTIONS.name, good, [("ce_id", None)])
        await send(PREDICTIONS.name, good, [("ce_id", b"f" * 1_000_000)])
        for changes in ({"epoch": 2**70}, {"classes": [0, 2**70]}):
            await send(PREDICTIONS.name, PREDICTIONS.encode(PredictionFrame([block(**changes)])), named)
        await send(PREDICTIONS.name, large, named)
        await send(
            PREDICTIONS.name, PREDICTIONS.encode(fits), cloud_event_headers(PREDICTIONS, new_frame_id(time.time()))
        )
        await send(PREDICTIONS.name, good, named)
        long_id = FeedbackFrame([FeedbackGiven("f" * 1_000_000, 0, 1, 1.0)])
        await send(FEEDBACK.name, FEEDBACK.encode(long_id), [])
        insisting = FeedbackFrame([FeedbackGiven(frame_id, 0, f"{at}" + "x" * 995, 1.0) for at in range(1_100)])
        await send(FEEDBACK.name, FEEDBACK.encode(insisting), [])
        await send(FEEDBACK.name, FEEDBACK.encode(FeedbackFrame([FeedbackGiven(frame_id, 1, 1, 1.0)])), [])
    counts = await counted(worker, lambda counts: counts.reports == 1_101 and counts.predictions == 200_001)
    assert counts.refused == 1_101
    assert HISTORY_LIMIT < 1_100
    kept = await parked(kafka)
    assert all(size == min(length, PARKED_BYTES) for size, length in kept.values())
    assert {length for _, length in kept.values()} >= {0, 2_000_000}
    assert any("fit in a record" in reason for reason in kept)
    await until(lambda: worker.reasons() == "")


@pytest.mark.timeout(150)
async def test_a_worker_whose_kafka_dies_while_it_starts_ends_and_the_next_one_is_ready(
    own_kafka: KafkaBroker, worker: Worker
):
    await ensure_topics(own_kafka.bootstrap, partitions=1, replication=1)
    worker.start()
    await until(lambda: b"Creating topic" in worker.log.read_bytes())
    own_kafka.kill()
    assert worker.reasons() != ""
    own_kafka.start()
    own_kafka.wait_ready(60)
    await until(lambda: worker.reasons() == "" or not worker.alive)
    if not worker.alive:
        assert worker.process.returncode == 1
        worker.start()
        await until(lambda: worker.reasons() == "")
    worker.process.terminate()
    assert worker.process.wait(60) == 0


@pytest.mark.timeout(90)
async def test_a_worker_outlives_a_kafka_that_is_away_for_longer_than_a_session(own_kafka: KafkaBroker, worker: Worker):
    worker.start()
    await until(lambda: worker.reasons() == "")
    own_kafka.kill()
    await asyncio.sleep(AWAY_S)
    own_kafka.start()
    own_kafka.wait_ready(60)
    async with producing(own_kafka.bootstrap) as producer:
        value, headers = PREDICTIONS.encode(PredictionFrame([block()])), cloud_event_headers(PREDICTIONS, "f")
        await producer.send_and_wait(PREDICTIONS.name, value, partition=0, headers=headers)
    await counted(worker, lambda counts: counts.predictions == 1)
    await until(lambda: worker.reasons() == "")  # the group may be shared out once more


@pytest.mark.timeout(90)
async def test_experiments_are_followed_past_records_that_are_none(own_kafka: KafkaBroker):
    await ensure_topics(own_kafka.bootstrap, partitions=1, replication=1)
    async with ExperimentsFromKafka(own_kafka.bootstrap) as experiments, producing(own_kafka.bootstrap) as producer:
        for value in (b'{"name":"\xff"}', b'{"x":' + b"[" * 100_000, None, EXPERIMENTS.encode(REVISION)):
            await producer.send_and_wait(EXPERIMENTS.name, value, key=b"e")
        await until(lambda: experiments.all() == [REVISION])


async def test_experiments_are_complete_once_all_that_were_announced_are_read(own_kafka: KafkaBroker):
    kafka = own_kafka.bootstrap
    async with ExperimentsFromKafka(kafka) as experiments, asyncio.timeout(DEADLINE_S):
        assert not experiments.is_complete  # a topic that is not there yet is not read
        await ensure_topics(kafka, partitions=1, replication=1)
        await until(lambda: experiments.is_complete)
        assert experiments.all() == []
    value = EXPERIMENTS.encode(REVISION)
    async with producing(kafka) as producer:
        for number in range(2000):
            await producer.send(EXPERIMENTS.name, value.replace(b'"e"', b'"e-%d"' % number), key=b"%d" % number)
        await producer.flush()
    async with ExperimentsFromKafka(kafka) as experiments:
        await until(lambda: experiments.is_complete)
        assert len(experiments.all()) == 2000


@pytest.mark.timeout(150)
async def test_records_that_can_not_even_be_parked_are_noted_and_the_worker_goes_on(
    own_kafka: KafkaBroker, worker: Worker, tmp_path: Path
):
    kafka = own_kafka.bootstrap
    await ensure_topics(kafka, partitions=1, replication=1)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    tiny = ConfigResource(ConfigResourceType.TOPIC, PARKED_NAME, configs={"max.message.bytes": "200"})
    await admin.alter_configs([tiny])
    await admin.close()
    worker.start()
    good = PREDICTIONS.encode(PredictionFrame([block()]))
    long_value = good.replace(b'"binary"', b'"%s"' % (b"A" * 7_000_000))
    async with producing(kafka) as producer:
        for value, topic in (
            (long_value, PREDICTIONS),
            (good, FEEDBACK),
            (b"{" * 500, PREDICTIONS),
            (good, PREDICTIONS),
        ):
            headers = cloud_event_headers(topic, new_frame_id(1.0))
            await producer.send_and_wait(PREDICTIONS.name, value, partition=0, headers=headers)
    await counted(worker, lambda counts: counts.predictions == 1)
    noted = (tmp_path / "data" / "feedback_service" / f"worker-{worker.port}" / "set-aside.jsonl").read_text()
    lines = [json.loads(line) for line in noted.splitlines()]
    assert [(line["topic"], line["partition"], line["offset"]) for line in lines] == [
        (PREDICTIONS.name, 0, offset) for offset in range(3)
    ]
    assert FEEDBACK.type_name in lines[1]["reason"]
    assert len(worker.log.read_text()) < 50_000
    assert await parked(kafka) == {}
