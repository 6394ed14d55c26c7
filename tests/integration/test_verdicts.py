"""An experiment reaches its verdict on real Kafka, Valkey and SQL, and it stays, whatever comes later."""

import asyncio
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord

from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.feedback_service import Results, VerdictEvent, VerdictEvents
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from services.feedback_service.main import create_app
from services.feedback_service.settings import FeedbackSettings
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.ids import new_frame_id
from shared.testing import client_for
from shared.topic_admin import ensure_topics
from shared.topic_reading import open_reader
from shared.topics import EXPERIMENTS, FEEDBACK, PREDICTIONS, VERDICTS, cloud_event_headers

NAME = "churn-2"
PARTITIONS = 2
ROWS = 300
"""Rows of a variant in a frame; each partition has one frame."""

LATE_ROWS = 60
"""Of these rows of a variant and frame the label comes after the verdict."""

WINDOW_S = 5.0
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def own_kafka(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of its own: no other test's events are in its topics."""
    port, controller_port = free_ports(2)
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), port, controller_port, kafka_jars, heap="512m")
    broker.start()
    try:
        broker.wait_ready(60)
        yield broker.bootstrap
    finally:
        broker.kill()


@dataclass
class Workers:
    """Worker processes that share one database, each with a port of its own."""

    environment: dict[str, str]
    log: Path
    processes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self) -> int:
        (port,) = free_ports(1)
        environment = {**os.environ, **self.environment, "CONTENDER_FEEDBACK_SERVICE_PORT": str(port - 10)}
        with self.log.open("ab") as log:
            self.processes[port] = subprocess.Popen(
                [sys.executable, "-m", "services.feedback_service", "worker"], env=environment, stderr=log
            )
        return port

    def kill(self, port: int) -> None:
        process = self.processes.pop(port)
        process.kill()
        process.wait(10)

    def looks(self, port: int) -> float:
        """How many looks a worker has made; -1 while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return -1.0
        return next(float(line.split()[1]) for line in lines if line.startswith("contender_feedback_looks_total "))


@pytest.fixture
def environment(own_kafka: str, valkey: str, tmp_path: Path) -> dict[str, str]:
    return {
        "CONTENDER_KAFKA": own_kafka,
        "CONTENDER_REDIS": valkey.removesuffix("/0") + "/8",
        "CONTENDER_DATA": str(tmp_path / "data"),
        "CONTENDER_PARTITIONS": str(PARTITIONS),
        "CONTENDER_VERDICT_INTERVAL_S": "0.2",
        "CONTENDER_VINTAGE_INTERVAL_S": "0.5",
    }


@pytest.fixture
def workers(environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(environment, tmp_path / "workers.log")
    yield workers
    for port in list(workers.processes):
        workers.kill(port)


@pytest.fixture
async def web(environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """The web process, in this one."""
    fields = {name.removeprefix("CONTENDER_").lower(): value for name, value in environment.items()}
    async with client_for(create_app(FeedbackSettings(**fields))) as client:
        yield client


@asynccontextmanager
async def producing(kafka: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def revision() -> ExperimentRevision:
    return ExperimentRevision(
        name=NAME,
        model="churn",
        revision=2,
        epoch=1,
        status="running",
        seed="s",
        champion="champion",
        variants=[VariantAllocation("champion", "v1", 0.5), VariantAllocation("challenger", "v2", 0.5)],
        metric="log_loss",
        window_s=WINDOW_S,
        cycle_days=0,
        cycle_reason="the rows are drawn at random",
        changed_at=time.time() - 120.0,
        started_at=time.time() - 120.0,
    )


@dataclass(frozen=True)
class Traffic:
    """A frame of predictions for each partition, in which the challenger is better, and the labels of its rows."""

    frames: dict[int, str]
    began_at: float
    outcomes: list[int]
    scores: dict[str, list[float]]

    @classmethod
    def drawn(cls) -> "Traffic":
        chance = random.Random(14)
        outcomes = [chance.randrange(2) for _ in range(ROWS)]
        noise = [chance.random() for _ in range(ROWS)]
        better = [0.2 + 0.6 * outcome * value for outcome, value in zip(outcomes, noise, strict=True)]
        began_at = time.time() - 60.0
        frames = {number: new_frame_id(began_at + number) for number in range(PARTITIONS)}
        return cls(frames, began_at, outcomes, {"champion": noise, "challenger": better})

    def time_of(self, row: int) -> float:
        return self.began_at + row / ROWS

    def predictions(self, partition: int) -> PredictionFrame:
        return PredictionFrame(
            [
                PredictionBlock(
                    model="churn",
                    version=version,
                    task="binary",
                    classes=[0, 1],
                    experiment=NAME,
                    revision=2,
                    epoch=1,
                    window_s=WINDOW_S,
                    variant=variant,
                    served_variant=variant,
                    assignment_probability=0.5,
                    unit=[f"{variant}-{partition}-{row}" for row in range(ROWS)],
                    time=[self.time_of(row) for row in range(ROWS)],
                    score=self.scores[variant],
                )
                for variant, version in (("champion", "v1"), ("challenger", "v2"))
            ]
        )

    def labels(self, partition: int, rows: range) -> FeedbackFrame:
        frame_id = self.frames[partition]
        return FeedbackFrame(
            [
                FeedbackGiven(frame_id, first + row, self.outcomes[row], self.time_of(row) + 1.0)
                for first in (0, ROWS)
                for row in rows
            ]
        )


async def send_labels(producer: AIOKafkaProducer, traffic: Traffic, rows: range) -> None:
    for partition in range(PARTITIONS):
        value = FEEDBACK.encode(traffic.labels(partition, rows))
        headers = cloud_event_headers(FEEDBACK, new_frame_id(time.time()))
        await producer.send_and_wait(FEEDBACK.name, value, partition=partition, headers=headers)


async def sent_verdicts(kafka: str) -> list[ConsumerRecord]:
    """All records of the topic `verdicts`."""
    async with open_reader(kafka, VERDICTS.name, range(PARTITIONS)) as reader:
        return [record async for records in reader.read({}, await reader.ends()) for record in records]


async def until(holds: Callable[[], Awaitable[bool]], log: Path) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await holds():
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(log.read_text()[-3000:])


async def results(web: httpx.AsyncClient) -> Results:
    answer = await web.get(f"/v1/experiments/{NAME}/results")
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=Results)


async def verdicts(web: httpx.AsyncClient) -> list[VerdictEvent]:
    answer = await web.get(f"/v1/experiments/{NAME}/verdicts")
    return msgspec.json.decode(answer.content, type=VerdictEvents).verdicts if answer.status_code == 200 else []


async def as_of(web: httpx.AsyncClient, at: float) -> bytes:
    answer = await web.get(f"/v1/experiments/{NAME}/results", params={"as_of": repr(at)})
    assert answer.status_code == 200, answer.text
    return answer.content


def labelled(results: Results) -> int:
    return sum(variant.labelled for variant in results.variants)


@pytest.mark.timeout(240)
async def test_a_verdict_is_found_sent_and_kept_through_a_crash_and_late_labels(
    own_kafka: str, workers: Workers, web: httpx.AsyncClient
):
    await ensure_topics(own_kafka, partitions=PARTITIONS, replication=1)
    traffic = Traffic.drawn()
    first = workers.start()
    async with producing(own_kafka) as producer:
        await producer.send_and_wait(EXPERIMENTS.name, EXPERIMENTS.encode(revision()), key=NAME.encode())
        for partition, frame_id in traffic.frames.items():
            value = PREDICTIONS.encode(traffic.predictions(partition))
            headers = cloud_event_headers(PREDICTIONS, frame_id)
            await producer.send_and_wait(PREDICTIONS.name, value, partition=partition, headers=headers)
        await send_labels(producer, traffic, range(LATE_ROWS, ROWS))

        async def is_sent() -> bool:
            return bool(await sent_verdicts(own_kafka))

        await until(is_sent, workers.log)
        (record,) = await sent_verdicts(own_kafka)
        (event,) = await verdicts(web)
        assert (VERDICTS.decode(record.value), record.key) == (event, NAME.encode())
        assert {"ce_id": f"{NAME}/1".encode(), "ce_type": VERDICTS.type_name.encode()}.items() <= dict(
            record.headers
        ).items()
        assert (event.kind, event.challenger, event.status) == ("decided", "challenger", "challenger better")
        before = await as_of(web, event.at)
        kept = msgspec.json.decode(before, type=Results)
        assert kept.verdict.sentence == event.sentence
        assert kept.offsets == event.offsets
        assert labelled(kept) == 2 * PARTITIONS * (ROWS - LATE_ROWS)

        workers.kill(first)
        assert await as_of(web, event.at) == before
        second = workers.start()
        await send_labels(producer, traffic, range(LATE_ROWS))

        async def has_looked_at_all_labels() -> bool:
            newest = msgspec.json.decode(await as_of(web, time.time()), type=Results)
            return labelled(newest) == 2 * PARTITIONS * ROWS

        await until(has_looked_at_all_labels, workers.log)
    assert workers.looks(second) >= 1
    assert await as_of(web, event.at) == before
    assert [known.kind for known in await verdicts(web)].count("decided") == 1
    assert (await verdicts(web))[0] == event
    now = await results(web)
    assert labelled(now) == 2 * PARTITIONS * ROWS
    assert (now.verdict.status, now.verdict.decided_at) == (event.status, event.at)
    sent = [VERDICTS.decode(record.value) for record in await sent_verdicts(own_kafka)]
    assert sent[0] == event
    assert [known.kind for known in sent].count("decided") == 1
    early = await web.get(f"/v1/experiments/{NAME}/results", params={"as_of": repr(traffic.began_at)})
    assert (early.status_code, early.json()["type"]) == (404, "/problems/no-vintage")
