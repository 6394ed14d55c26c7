"""The router under load, killed or without Kafka: every prediction it answered is in the topic afterwards, once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import numpy as np
import pandas as pd
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from contender.registration import export_pipeline, register
from contender.transport import Transport
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from shared.ids import PredictionId
from shared.topics import PREDICTIONS

PARTITIONS = 4
MODEL = "churn"
CALLERS = 8
KILLS = 5
LOAD_S = 12.0
OUTAGE_S = 10.0
DEADLINE_S = 60.0


@dataclass
class Parts:
    """A broker, an inference service with one model, and a router: all of them may be killed."""

    broker: KafkaBroker
    router: Service
    url: str


@pytest.fixture
def parts(kafka_jars: list[Path], valkey_server, tmp_path: Path) -> Iterator[Parts]:
    kafka_port, controller_port, router_port, inference_port, feature_port = free_ports(5)
    settings = StackSettings(
        home=tmp_path,
        kafka_port=kafka_port,
        valkey_port=valkey_server.port,
        ab_router_port=router_port,
        inference_service_port=inference_port,
        feature_service_port=feature_port,  # where nobody answers: this model needs no features
        partitions=PARTITIONS,
    )
    broker = KafkaBroker(tmp_path / "kafka", kafka_port, controller_port, kafka_jars, heap="512m")
    inference = Service(ServiceProcess("inference_service", "web"), settings)
    router = Service(ServiceProcess("ab_router", "web"), settings)
    processes = [broker, inference, router]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.wait_ready(DEADLINE_S)
        with Transport({"inference_service": settings.url("inference_service")}) as transport:
            register(transport, MODEL, export_pipeline(*fitted()))
        yield Parts(broker, router, settings.url("ab_router"))
    finally:
        for process in processes:
            process.kill()


def fitted() -> tuple[Pipeline, pd.DataFrame]:
    random = np.random.default_rng(7)
    rows = pd.DataFrame({"age": random.normal(40, 10, 200), "spend": random.normal(5, 2, 200)})
    pipeline = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
    return pipeline.fit(rows, rows["age"] + rows["spend"] > 45), rows


@dataclass
class Load:
    """Calls from several callers at once, and what was answered to them."""

    client: httpx.AsyncClient
    answered: list[str] = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, caller: int) -> None:
        number = 0
        while not self.done.is_set():
            number += 1
            body = {"unit": f"u-{caller}-{number}", "inputs": {"age": 41.0, "spend": 4.0}}
            try:
                answer = await self.client.post(f"/v1/models/{MODEL}/predict", json=body)
            except httpx.TransportError:  # the router is being killed
                await asyncio.sleep(0.02)
                continue
            if answer.status_code == httpx.codes.OK:
                self.answered.append(answer.json()["prediction_id"])
            else:
                self.refused[answer.status_code] += 1


@asynccontextmanager
async def loaded(url: str) -> AsyncIterator[Load]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        load = Load(client)
        async with asyncio.TaskGroup() as callers:
            for caller in range(CALLERS):
                callers.create_task(load.run(caller))
            try:
                yield load
            finally:
                load.done.set()


async def frames_in_topic(bootstrap: str) -> Counter:
    """How often each frame id stands in the topic, with the number of its rows."""
    partitions = [TopicPartition(PREDICTIONS.name, number) for number in range(PARTITIONS)]
    counts: Counter = Counter()
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        behind = [partition for partition in partitions if ends[partition] > 0]
        while behind:
            for partition, records in (await consumer.getmany(*behind, timeout_ms=500)).items():
                for record in records:
                    rows = sum(len(block) for block in PREDICTIONS.decode(record.value).blocks)
                    counts[dict(record.headers)["ce_id"].decode(), partition.partition, rows] += 1
            behind = [partition for partition in behind if await consumer.position(partition) < ends[partition]]
    return counts


async def arrived(parts: Parts, answered: list[str]) -> Counter:
    """The topic's frames, once every answered prediction is among them."""
    wanted = {(prediction.frame_id, prediction.shard) for prediction in map(PredictionId.parse, answered)}
    async with asyncio.timeout(DEADLINE_S):
        while True:
            frames = await frames_in_topic(parts.broker.bootstrap)
            if wanted <= {(frame_id, shard) for frame_id, shard, _ in frames}:
                return frames
            await asyncio.sleep(0.2)


def check_once(answered: list[str], frames: Counter) -> None:
    assert len(set(answered)) == len(answered)
    assert set(frames.values()) == {1}
    rows = {(frame_id, shard): size for frame_id, shard, size in frames}
    assert len(rows) == len(frames)
    assert all(
        prediction.row < rows[prediction.frame_id, prediction.shard] for prediction in map(PredictionId.parse, answered)
    )


@pytest.mark.timeout(180)
async def test_whatever_a_killed_router_had_answered_is_in_the_topic_once(parts: Parts):
    moments = sorted(Random(11).uniform(0.5, LOAD_S - 1) for _ in range(KILLS))
    async with loaded(parts.url) as load:
        for before, moment in zip([0.0, *moments], moments, strict=False):
            await asyncio.sleep(moment - before)
            parts.router.kill()
            parts.router.start()
        parts.router.wait_ready(DEADLINE_S)
        count = len(load.answered)
        async with asyncio.timeout(DEADLINE_S):
            while len(load.answered) < count + 200:  # it answers again
                await asyncio.sleep(0.05)
    check_once(load.answered, await arrived(parts, load.answered))
    assert not load.refused


@pytest.mark.timeout(180)
async def test_predictions_go_on_without_kafka_and_all_of_them_arrive_later(parts: Parts):
    async with loaded(parts.url) as load:
        async with asyncio.timeout(DEADLINE_S):
            while len(load.answered) < 200:
                await asyncio.sleep(0.05)
        parts.broker.kill()
        before = len(load.answered)
        await asyncio.sleep(OUTAGE_S / 2)
        halfway = len(load.answered)
        await asyncio.sleep(OUTAGE_S / 2)
        after = len(load.answered)
        parts.broker.start()
    parts.broker.wait_ready(DEADLINE_S)
    assert before + 200 < halfway < after - 200
    check_once(load.answered, await arrived(parts, load.answered))
    assert not load.refused
