"""Every event counts once: two workers on real Kafka and Valkey, killed and restarted while events stream in."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis.asyncio import Redis

from contender.features.catalogue import Catalogue
from contender.features.layouts import Sums
from embedded.ports import free_ports
from services.feature_service.domain.rings import Ring, Rings
from services.feature_service.store.redis import ring_keys
from shared.events import EntityEvent, EntityEventFrame
from shared.ids import new_frame_id
from shared.topic_admin import ensure_topics
from shared.topics import ENTITY_EVENTS, PARKED_NAME, cloud_event_headers

SEED = 20261
TILE, COUNT, TOTAL = (Sums.fields.index(name) for name in ("tile", "count", "total"))
PARTITIONS = 4
FRAME_EVENTS = 50
FRAMES = 2400
EVENTS_PER_SECOND = 6000
KILLS = 5
SHOPS = 40
HOURS = 20
DEADLINE_S = 60
DEFINITIONS = """
from contender.features import Entity, EventSource, FeatureView, count, sum

exact_sales = EventSource("exact_sales", {"exact_shop": str, "items": int})
exact_shop = Entity("exact_shop", "exact_shop")
exact = FeatureView("exact", exact_shop, exact_sales, [sum("items", "24h"), count("24h")], hop="1h")
"""


@dataclass
class Sender:
    """Sends frames, duplicates, single events, misfits and garbage; keeps its own count and sum per shop and hour."""

    random: Random
    newest_s: int
    sent: dict[tuple[str, int], np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(2)))
    parked: int = 0
    events: int = 0

    def event(self) -> EntityEvent:
        shop, items = f"shop-{self.random.randrange(SHOPS)}", self.random.randint(-1000, 1000)
        at = self.newest_s - self.random.randrange(HOURS * 3600)
        self.sent[shop, at // 3600] += (1, items)
        self.events += 1
        return EntityEvent("exact_sales", float(at), {"exact_shop": shop, "items": items})

    def frame(self) -> EntityEventFrame:
        return EntityEventFrame([self.event() for _ in range(FRAME_EVENTS)])

    async def send_all(self, producer: AIOKafkaProducer) -> None:
        started = time.monotonic()
        repeated: list[tuple[bytes, int, list[tuple[str, bytes]]]] = []
        for number in range(FRAMES):
            partition = self.random.randrange(PARTITIONS)
            headers = cloud_event_headers(ENTITY_EVENTS, new_frame_id(time.time()))
            record = (ENTITY_EVENTS.encode(self.frame()), partition, headers)
            await self.send(producer, *record)
            if self.random.random() < 0.05:
                repeated.append(record)
            if repeated and self.random.random() < 0.05:
                await self.send(producer, *repeated.pop(0))
            if number % 20 == 0:
                await self.send(producer, msgspec.json.encode(self.event()), partition, [])
            if number % 200 == 0:
                await self.send_unreadable(producer, partition)
            ahead_s = self.events / EVENTS_PER_SECOND - (time.monotonic() - started)
            if ahead_s > 0.02:
                await asyncio.sleep(ahead_s)
        for record in repeated:
            await self.send(producer, *record)
        await producer.flush()

    async def send_unreadable(self, producer: AIOKafkaProducer, partition: int) -> None:
        misfit = EntityEvent("exact_sales", float(self.newest_s), {"exact_shop": "shop-0", "items": "many"})
        unknown = EntityEvent("nowhere", float(self.newest_s), {})
        good = self.event()
        await self.send(producer, ENTITY_EVENTS.encode(EntityEventFrame([misfit, good, unknown])), partition, [])
        await self.send(producer, b"\xff not json", partition, [])
        self.parked += 2

    async def send(self, producer, value: bytes, partition: int, headers: list[tuple[str, bytes]]) -> None:
        await producer.send(ENTITY_EVENTS.name, value, partition=partition, headers=headers)


class Worker:
    """A feature worker as a process of its own."""

    def __init__(self, folder: Path, kafka: str, redis: str) -> None:
        self.log = folder / "worker.log"
        folder.mkdir()
        port = next(p for p in free_ports(20) if p < 65_000)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder.parent), str(Path(__file__).parents[2])]),
            "CONTENDER_FEATURES": "exact_definitions",
            "CONTENDER_KAFKA": kafka,
            "CONTENDER_REDIS": redis,
            "CONTENDER_DATA": str(folder),
            "CONTENDER_FEATURE_SERVICE_PORT": str(port),
        }
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "services.feature_service", "worker"]
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def kill_and_restart(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self.process = self.start()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def workers(kafka: str, valkey: str, tmp_path: Path) -> Iterator[list[Worker]]:
    (tmp_path / "exact_definitions.py").write_text(DEFINITIONS)
    started = [Worker(tmp_path / f"worker-{number}", kafka, redis_url(valkey)) for number in range(2)]
    try:
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.wait(60)


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    monkeypatch.syspath_prepend(str(tmp_path))
    view = Catalogue.load("exact_definitions").views["exact"]
    return Rings.of({"exact@1": view}).ring("exact@1", view.aggregations[0])


def redis_url(valkey: str) -> str:
    return valkey.rsplit("/", 1)[0] + "/5"


@asynccontextmanager
async def clients(kafka: str, valkey: str) -> AsyncIterator[tuple[AIOKafkaProducer, Redis]]:
    await ensure_topics(kafka, partitions=PARTITIONS, replication=1)
    async with (
        AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True, linger_ms=5) as producer,
        Redis.from_url(redis_url(valkey)) as redis,
    ):
        yield producer, redis


async def ends(kafka: str, topic: str) -> dict[int, int]:
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer:
        offsets = await consumer.end_offsets([TopicPartition(topic, number) for number in range(PARTITIONS)])
        return {partition.partition: end for partition, end in offsets.items()}


async def wait_applied(redis: Redis, until: dict[int, int]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            applied = await redis.mget([f"{{feeds.{partition}}}:applied" for partition in until])
            if all(int(offset or -1) >= end - 1 for offset, end in zip(applied, until.values(), strict=True)):
                return
            await asyncio.sleep(0.1)


async def wait_live(redis: Redis, ring: Ring) -> None:
    """Return once the ring holds what all partitions had: it is filled beside the stream."""
    async with asyncio.timeout(DEADLINE_S):
        for partition in range(PARTITIONS):
            while ring.name.encode() not in await redis.smembers(f"{{feeds.{partition}}}:live"):
                await asyncio.sleep(0.1)


async def kill_now_and_then(workers: list[Worker], random: Random, over_s: float) -> None:
    moments = sorted(random.uniform(0.1 * over_s, over_s) for _ in range(KILLS))
    for before, at in zip([0.0, *moments], moments, strict=False):
        await asyncio.sleep(at - before)
        await asyncio.to_thread(random.choice(workers).kill_and_restart)


@pytest.mark.timeout(180)
async def test_every_event_counts_once_whatever_dies(kafka, valkey, workers, ring):
    random = Random(SEED)
    sender = Sender(random, int(time.time()) - 60)
    async with clients(kafka, valkey) as (producer, redis):
        parked_before = sum((await ends(kafka, PARKED_NAME)).values())
        duration_s = FRAMES * FRAME_EVENTS / EVENTS_PER_SECOND
        await asyncio.gather(sender.send_all(producer), kill_now_and_then(workers, Random(SEED), duration_s))
        await wait_applied(redis, await ends(kafka, ENTITY_EVENTS.name))
        await wait_live(redis, ring)
        shops = [f"shop-{number}" for number in range(SHOPS)]
        held = await redis.mget(ring_keys(ring, shops))
        parked = sum((await ends(kafka, PARKED_NAME)).values()) - parked_before
    served = {}
    for shop, value in zip(shops, held, strict=True):
        cells = np.frombuffer(value[: ring.cells_bytes]).reshape(ring.slots, len(Sums.fields))
        served.update({(shop, int(cell[TILE])): tuple(cell[[COUNT, TOTAL]]) for cell in cells if cell[COUNT]})
    assert served == {key: tuple(sums) for key, sums in sender.sent.items()}
    assert parked >= sender.parked
    assert [await asyncio.to_thread(worker.terminate) for worker in workers] == [0, 0]
