"""Two routers are restarted one after the other under load: no call fails, and each answered one is on record once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sklearn.linear_model import LogisticRegression

from contender.registration import export_pipeline, register
from contender.transport import Transport
from embedded.ports import free_ports
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from shared.ids import PredictionId
from shared.topics import PREDICTIONS

MODEL = "rolling"
CALLERS = 8
ROUNDS = 2
LOOK_S = 0.05
DRAIN_S = 1.0
DEADLINE_S = 60.0
BODY = {"inputs": {"age": 41.0, "spend": 4.0}}


@dataclass
class Balancer:
    """A load balancer in small: calls go to the routers in turn, to those that were ready when it last looked."""

    client: httpx.AsyncClient
    urls: list[str]
    ready: list[str] = field(default_factory=list)
    turn: Iterator[int] = field(default_factory=count)

    async def look(self) -> None:
        while True:
            answers = await asyncio.gather(*map(self._is_ready, self.urls))
            self.ready = [url for url, is_ready in zip(self.urls, answers, strict=True) if is_ready]
            await asyncio.sleep(LOOK_S)

    async def post(self, path: str, body: object) -> httpx.Response:
        ready = self.ready
        return await self.client.post(ready[next(self.turn) % len(ready)] + path, json=body)

    async def _is_ready(self, url: str) -> bool:
        try:
            return (await self.client.get(f"{url}/readyz")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@dataclass
class Load:
    """Callers that predict one call after another, and what became of their calls."""

    balancer: Balancer
    answered: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    done: bool = False

    async def run(self, caller: int) -> None:
        for number in count():
            if self.done:
                return
            try:
                body = {**BODY, "unit": f"u-{caller}-{number}"}
                answer = await self.balancer.post(f"/v1/models/{MODEL}/predict", body)
            except httpx.TransportError as error:
                self.failures[repr(error)] += 1
                continue
            if answer.status_code == httpx.codes.OK:
                self.answered.append(answer.json()["prediction_id"])
            else:
                self.failures[answer.text] += 1


def settings_of(home: Path, kafka: str, inference_port: int, router_port: int, feature_port: int) -> StackSettings:
    return StackSettings(
        home=home,
        kafka_port=int(kafka.rpartition(":")[2]),
        inference_service_port=inference_port,
        ab_router_port=router_port,
        feature_service_port=feature_port,  # where nobody answers: this model needs no features
        drain_s=DRAIN_S,
    )


@pytest.fixture
def routers(kafka: str, tmp_path: Path) -> Iterator[list[Service]]:
    inference_port, feature_port, *router_ports = free_ports(4)
    settings = [
        settings_of(tmp_path / f"router-{port}", kafka, inference_port, port, feature_port) for port in router_ports
    ]
    inference = Service(ServiceProcess("inference_service", "web"), settings[0])
    routers = [Service(ServiceProcess("ab_router", "web"), of_router) for of_router in settings]
    try:
        for process in (inference, *routers):
            process.start()
        for process in (inference, *routers):
            process.wait_ready(DEADLINE_S)
        with Transport({"inference_service": settings[0].url("inference_service")}) as transport:
            register(transport, MODEL, export_pipeline(*fitted()))
        yield routers
    finally:
        for process in (inference, *routers):
            process.kill()


def fitted() -> tuple[LogisticRegression, pd.DataFrame]:
    random = np.random.default_rng(7)
    rows = pd.DataFrame({"age": random.normal(40, 10, 200), "spend": random.normal(5, 2, 200)})
    return LogisticRegression().fit(rows, rows["age"] + rows["spend"] > 45), rows


@asynccontextmanager
async def loaded(balancer: Balancer) -> AsyncIterator[Load]:
    load = Load(balancer)
    async with asyncio.TaskGroup() as tasks:
        for caller in range(CALLERS):
            tasks.create_task(load.run(caller))
        try:
            yield load
        finally:
            load.done = True


async def until(condition) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def rows_in_topic(bootstrap: str) -> list[str]:
    """The ids of all predictions of the model, in the order of the topic."""
    ids: list[str] = []
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        partitions = [TopicPartition(PREDICTIONS.name, number) for number in range(StackSettings().partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while behind := [at for at in partitions if await consumer.position(at) < ends[at]]:
            for at, records in (await consumer.getmany(*behind, timeout_ms=500)).items():
                for record in records:
                    frame_id, first = dict(record.headers)["ce_id"].decode(), 0
                    for block in PREDICTIONS.decode(record.value).blocks:
                        if block.model == MODEL:
                            rows = range(first, first + len(block))
                            ids += [str(PredictionId(frame_id, at.partition, row)) for row in rows]
                        first += len(block)
    return ids


@pytest.mark.timeout(240)
async def test_a_rolling_restart_loses_no_call(routers: list[Service], kafka: str):
    urls = [f"http://127.0.0.1:{router.port}" for router in routers]
    limits = httpx.Limits(max_keepalive_connections=CALLERS)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        balancer = Balancer(client, urls)
        looking = asyncio.create_task(balancer.look())
        await until(lambda: len(balancer.ready) == len(urls))
        async with loaded(balancer) as load:
            for router, url in [*zip(routers, urls, strict=True)] * ROUNDS:
                answered = len(load.answered)
                await until(lambda answered=answered: len(load.answered) > answered + 100)
                router.terminate()
                await until(lambda url=url: url not in balancer.ready)
                assert router.alive, "it ends only after its drain"
                await until(lambda router=router: not router.alive)
                assert router.exit_code == 0
                router.start()
                await until(lambda url=url: url in balancer.ready)
        looking.cancel()
    assert load.failures == {}
    assert len(load.answered) > 1000
    async with asyncio.timeout(DEADLINE_S):
        while len(on_record := await rows_in_topic(kafka)) < len(load.answered):
            await asyncio.sleep(0.2)
    assert Counter(on_record) == Counter(load.answered)
