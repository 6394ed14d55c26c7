"""The router's worker on real Kafka and SQLite: what verdicts and results do to traffic, how soon, and only once."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from contender.contracts.experiments import Canary, ExperimentRevision
from contender.contracts.feedback_service import Results, VerdictEvent
from contender.registration import export_pipeline, register
from contender.transport import Transport
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports, is_free
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from services.ab_router.worker import GROUP
from shared.topic_reading import open_reader
from shared.topics import EXPERIMENTS, PARKED_NAME, VERDICTS, cloud_event_headers
from tests.unit.ab_router.ramp_results import results, variant

MODEL, UNITS = "churn", 40
PARTITIONS = 2
DEADLINE_S = 60.0
AUTO_STOP_S = 5.0
_NUMBERS = count(1)


@dataclass
class FakeFeedback:
    """The feedback service, as far as the worker asks it: `answers` has the results by experiment.

    It answers nobody who asks for one of the `frozen`, until `thawed`.
    """

    port: int = 0
    answers: dict[str, Results] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    thawed: threading.Event = field(default_factory=threading.Event)


@dataclass
class Parts:
    """A broker, an inference service with two versions of a model, a router and its worker."""

    broker: KafkaBroker
    router: Service
    worker: Service
    feedback: FakeFeedback
    versions: tuple[str, str]
    database: Path
    url: str

    def metrics(self) -> str:
        """What the worker shows on its port."""
        return httpx.get(f"http://127.0.0.1:{self.worker.port}/metrics", timeout=5).text

    def revisions(self, name: str) -> list[ExperimentRevision]:
        """All revisions of an experiment in the database, oldest first."""
        query = "SELECT document FROM experiment_revision WHERE name = ? ORDER BY revision"
        with closing(sqlite3.connect(self.database)) as database:
            rows = database.execute(query, [name]).fetchall()
        return [msgspec.json.decode(document, type=ExperimentRevision) for (document,) in rows]


@pytest.fixture(scope="module")
def feedback() -> Iterator[FakeFeedback]:
    fake = FakeFeedback()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.split("/")[3]
            fake.asked.add(name)
            if name in fake.frozen:
                fake.thawed.wait(DEADLINE_S)
            known = fake.answers.get(name)
            body = (
                b"{}" if known is None else msgspec.json.encode(msgspec.structs.replace(known, updated_at=time.time()))
            )
            self.send_response(404 if known is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        fake.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        fake.thawed.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def parts(kafka_jars: list[Path], feedback: FakeFeedback, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    home = tmp_path_factory.mktemp("stack")
    kafka_port, controller_port, inference_port, feature_port = free_ports(4)
    router_port = next(port for (port,) in iter(lambda: free_ports(1), None) if is_free(port + 10))
    settings = StackSettings(
        home=home,
        kafka_port=kafka_port,
        ab_router_port=router_port,
        inference_service_port=inference_port,
        feature_service_port=feature_port,  # where nobody answers: this model needs no features
        feedback_service_url=f"http://127.0.0.1:{feedback.port}",
        partitions=PARTITIONS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTENDER_CONTROL_INTERVAL_S", "0.1")
        patch.setenv("CONTENDER_DATABASE_TIMEOUT_S", "1")
        patch.setenv("CONTENDER_RESULTS_TIMEOUT_S", "1")
        broker = KafkaBroker(home / "kafka", kafka_port, controller_port, kafka_jars, heap="512m")
        inference = Service(ServiceProcess("inference_service", "web"), settings)
        router = Service(ServiceProcess("ab_router", "web"), settings)
        worker = Service(ServiceProcess("ab_router", "worker"), settings)
        processes = [broker, inference, router, worker]
        try:
            for process in processes:
                process.start()
                process.wait_ready(DEADLINE_S)
            with Transport({"inference_service": settings.url("inference_service")}) as transport:
                first, second = (register(transport, MODEL, export_pipeline(*fitted(c))).version for c in (1.0, 0.001))
            database = settings.data_folder / "ab_router" / "store.db"
            yield Parts(broker, router, worker, feedback, (first, second), database, settings.url("ab_router"))
        finally:
            for process in reversed(processes):
                process.kill()


def fitted(c: float) -> tuple[Pipeline, pd.DataFrame]:
    random = np.random.default_rng(7)
    rows = pd.DataFrame({"age": random.normal(40, 10, 200), "spend": random.normal(5, 2, 200)})
    pipeline = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression(C=c))])
    return pipeline.fit(rows, rows["age"] + rows["spend"] > 45), rows


@pytest.fixture
async def web(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    if not parts.worker.alive:
        parts.worker.start()
        await asyncio.to_thread(parts.worker.wait_ready, DEADLINE_S)
    async with httpx.AsyncClient(base_url=parts.url, timeout=30) as client:
        yield client
        for known in (await client.get("/v1/experiments")).json()["experiments"]:
            if known["status"] in ("running", "paused", "decided"):
                await client.post(f"/v1/experiments/{known['name']}/stop")


@pytest.fixture
async def producer(parts: Parts) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=parts.broker.bootstrap, acks="all")
    await producer.start()
    yield producer
    await producer.stop()


async def running(parts: Parts, web: httpx.AsyncClient, **declared: Any) -> str:
    """The name of a new experiment that runs."""
    name = f"e-{next(_NUMBERS)}"
    first, second = parts.versions
    variants = [{"name": "a", "version": first, "weight": 0.5}, {"name": "b", "version": second, "weight": 0.5}]
    body = {"name": name, "model": MODEL, "variants": variants, "window_s": 60.0, **declared}
    created = await web.post("/v1/experiments", json=body)
    assert created.status_code == 201, created.text
    started = await web.post(f"/v1/experiments/{name}/start", json={"override": "a test"})
    assert started.status_code == 200, started.text
    return name


def event(name: str, **changes: Any) -> VerdictEvent:
    fields = {
        "experiment": name,
        "number": 1,
        "kind": "decided",
        "challenger": "b",
        "status": "stopped: guardrail",
        "sentence": "Guardrail breached: b is slower.",
        "at": time.time(),
        "model": MODEL,
        "metric": "log_loss",
        "revision": 2,
    }
    return VerdictEvent(**{**fields, **changes})


async def send(producer: AIOKafkaProducer, sent: VerdictEvent) -> None:
    headers = cloud_event_headers(VERDICTS, f"{sent.experiment}/{sent.number}")
    value, key = VERDICTS.encode(sent), sent.experiment.encode()
    await producer.send_and_wait(VERDICTS.name, value, key=key, partition=0, headers=headers)


async def until(holds: Callable[[], Any], parts: Parts) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(parts.worker.log.read_text()[-3000:])


async def answered_by(web: httpx.AsyncClient, unit: str) -> str:
    answer = await web.post(f"/v1/models/{MODEL}/predict", json={"unit": unit, "inputs": {"age": 41.0, "spend": 4.0}})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["version"])


async def unit_of_the_challenger(parts: Parts, web: httpx.AsyncClient) -> str:
    for number in range(UNITS):
        if await answered_by(web, f"u-{number}") == parts.versions[1]:
            return f"u-{number}"
    raise AssertionError("no unit is answered by the challenger")


async def end_of_topic(parts: Parts) -> int:
    async with open_reader(parts.broker.bootstrap, VERDICTS.name, [0]) as reader:
        return (await reader.ends())[0]


async def committed(parts: Parts) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=parts.broker.bootstrap)
    await admin.start()
    try:
        known = await admin.list_consumer_group_offsets(GROUP)
    finally:
        await admin.close()
    at = known.get(TopicPartition(VERDICTS.name, 0))
    return 0 if at is None else at.offset


async def until_read(parts: Parts) -> None:
    """Return when the worker has committed all of the topic."""
    end = await end_of_topic(parts)
    async with asyncio.timeout(DEADLINE_S):
        while await committed(parts) < end:
            await asyncio.sleep(0.05)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A database that answers nobody."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=DEADLINE_S)) as database:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")


async def records_of(parts: Parts, topic: str, partitions: int) -> list[ConsumerRecord]:
    async with open_reader(parts.broker.bootstrap, topic, range(partitions)) as reader:
        return [record async for records in reader.read({}, await reader.ends()) for record in records]


@pytest.mark.timeout(240)
async def test_a_breached_guardrail_stops_the_challengers_answers_within_five_seconds(
    parts: Parts, web: httpx.AsyncClient, producer: AIOKafkaProducer
):
    took_s = []
    for _ in range(5):
        name = await running(parts, web)
        unit = await unit_of_the_challenger(parts, web)
        sent = event(name)
        began = time.monotonic()
        await send(producer, sent)
        while await answered_by(web, unit) == parts.versions[1]:
            assert time.monotonic() < began + AUTO_STOP_S, parts.worker.log.read_text()[-3000:]
            await asyncio.sleep(0.01)
        took_s.append(time.monotonic() - began)
        stopped = parts.revisions(name)[-1]
        assert (stopped.status, stopped.changed_by, stopped.reason) == ("stopped", "contender", sent.sentence)
        assert stopped.evidence is not None
        assert (stopped.evidence.number, stopped.evidence.at) == (1, sent.at)
    assert max(took_s) < AUTO_STOP_S
    announced = [EXPERIMENTS.decode(record.value) for record in await records_of(parts, EXPERIMENTS.name, 1)]
    assert any(each.name == name and each.status == "stopped" for each in announced)


@pytest.mark.timeout(240)
async def test_an_event_has_its_effect_once_though_the_worker_is_killed_before_it_commits(
    parts: Parts, web: httpx.AsyncClient, producer: AIOKafkaProducer
):
    name = await running(parts, web, auto_stop=False)
    await until_read(parts)
    before = await committed(parts)
    await send(producer, event(name, status="challenger better"))
    await until(lambda: parts.revisions(name)[-1].status == "decided", parts)
    parts.worker.kill()
    assert await committed(parts) == before
    parts.worker.start()
    await until_read(parts)
    assert [each.status for each in parts.revisions(name)] == ["draft", "running", "decided"]


@pytest.mark.timeout(240)
async def test_an_event_waits_while_the_database_does_not_answer(
    parts: Parts, web: httpx.AsyncClient, producer: AIOKafkaProducer
):
    name = await running(parts, web)
    await until_read(parts)
    before = await committed(parts)
    with locked(parts.database):
        await send(producer, event(name))
        await until(lambda: not parts.worker.is_ready(), parts)
        await until(lambda: '"action": "act on verdicts"' in parts.worker.log.read_text(), parts)
        assert await committed(parts) == before
    await until(lambda: parts.revisions(name)[-1].status == "stopped", parts)
    await until(parts.worker.is_ready, parts)
    await until_read(parts)


@pytest.mark.timeout(240)
async def test_a_worker_that_starts_without_the_database_acts_once_it_is_there(
    parts: Parts, web: httpx.AsyncClient, producer: AIOKafkaProducer
):
    name = await running(parts, web)
    parts.worker.kill()
    await send(producer, event(name))
    with locked(parts.database):
        parts.worker.start()
        await until(lambda: '"action": "read experiments"' in parts.worker.log.read_text(), parts)
        assert not parts.worker.is_ready()
    await until(lambda: parts.revisions(name)[-1].status == "stopped", parts)
    await until(parts.worker.is_ready, parts)


@pytest.mark.timeout(240)
async def test_what_no_worker_can_read_is_parked_once_and_the_next_event_is_done(
    parts: Parts, web: httpx.AsyncClient, producer: AIOKafkaProducer
):
    name = await running(parts, web)
    for value in (b"\xff", b'{"experiment": 1}', b"null", b"[" * 2_000):
        await producer.send_and_wait(VERDICTS.name, value, partition=0)
    for odd in (event("no-such"), event(name, at=1.0), event(name, model="another"), event(name, challenger="z")):
        await send(producer, odd)
    await send(producer, event(name))
    await until(lambda: parts.revisions(name)[-1].status == "stopped", parts)
    await until_read(parts)
    parts.worker.kill()
    parts.worker.start()
    last = await running(parts, web)
    await send(producer, event(last))
    await until(lambda: parts.revisions(last)[-1].status == "stopped", parts)
    parked = [dict(record.headers) for record in await records_of(parts, PARKED_NAME, PARTITIONS)]
    assert [headers["topic"] for headers in parked] == [b"verdicts"] * 4
    assert [each.status for each in parts.revisions(name)] == ["draft", "running", "stopped"]


@pytest.mark.timeout(240)
async def test_a_canary_advances_by_results_and_holds_without_them(parts: Parts, web: httpx.AsyncClient):
    canary = msgspec.to_builtins(Canary([0.05, 0.25, 0.5], rows_per_step=100, seconds_per_step=1.0))
    name = await running(parts, web, canary=canary)

    def known(epoch: int, rows: int) -> Results:
        return results(experiment=name, epoch=epoch, variants=[variant("a", rows), variant("b", rows)])

    def is_held(cause: str) -> bool:
        return f'contender_router_allocation_held{{cause="{cause}",experiment="{name}"}} 1.0' in parts.metrics()

    def step() -> tuple[int | None, int, float]:
        newest = parts.revisions(name)[-1]
        return newest.step, newest.epoch, newest.coverage

    assert step() == (0, 1, 0.1)
    await until(lambda: is_held("no results"), parts)
    parts.feedback.answers[name] = known(epoch=1, rows=99)
    await until(lambda: is_held("too few rows"), parts)
    parts.feedback.answers[name] = known(epoch=1, rows=100)
    await until(lambda: step() == (1, 2, 0.5), parts)
    await until(lambda: is_held("old results"), parts)
    parts.feedback.answers[name] = known(epoch=2, rows=100)
    await until(lambda: step() == (2, 3, 1.0), parts)
    await until(lambda: is_held("last step"), parts)
    history = parts.revisions(name)
    assert [each.status for each in history] == ["draft", "running", "running", "running"]
    assert history[-1].reason.startswith("step 3 of 3, 0.5 of the units in each arm: no guardrail is breached")
    assert not history[-1].sticky
    await web.post(f"/v1/experiments/{name}/pause")
    await until(lambda: not is_held("last step"), parts)


@pytest.mark.timeout(240)
async def test_a_feedback_service_that_is_frozen_holds_canaries_and_no_verdict(
    parts: Parts, web: httpx.AsyncClient, producer: AIOKafkaProducer
):
    canary = msgspec.to_builtins(Canary([0.05, 0.5], rows_per_step=100, seconds_per_step=1.0))
    name = await running(parts, web, canary=canary)
    parts.feedback.frozen.add(name)
    await until(lambda: name in parts.feedback.asked, parts)
    began = time.monotonic()
    await send(producer, event(name))
    await until(lambda: parts.revisions(name)[-1].status == "stopped", parts)
    assert time.monotonic() < began + AUTO_STOP_S
    parts.feedback.thawed.set()
    assert [each.coverage for each in parts.revisions(name)] == [0.1] * 3
