"""The last good experiments on disk: a router starts and serves by them while the database is away or frozen."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic

import httpx
import msgspec
import pytest

from contender.contracts.experiments import ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.inference_service import InputColumn, ModelVersion
from embedded.ports import free_ports
from services.ab_router.catalog import CatalogCopy
from services.ab_router.domain.experiments import draft, started
from services.ab_router.errors import ExperimentStoreError
from services.ab_router.handlers.experiments import Experiments
from services.ab_router.main import create_app
from services.ab_router.settings import RouterSettings
from services.ab_router.store import InMemoryExperimentStore
from shared.testing import client_for
from shared.topics import EXPERIMENTS

ARMS = [VariantAllocation("old", "plain", 0.5), VariantAllocation("new", "streaming", 0.5)]
NEW = NewExperiment(name="e", model="late", variants=ARMS, fallback_value=0.25)
ROW = {"unit": "user-1", "inputs": {"distance": 7.0}}
VERSIONS = [
    ModelVersion(
        model="late",
        version=name,
        task="binary",
        classes=["on time", "late"],
        inputs=[InputColumn("distance", "float")],
        registered_at=1.0,
        champion=name == "plain",
    )
    for name in ("plain", "streaming")
]


class Away(InMemoryExperimentStore):
    """A database that is away until it is back."""

    is_away = True

    async def current(self) -> list[ExperimentRevision]:
        if self.is_away:
            raise ExperimentStoreError("away")
        return await super().current()


def opened(router, store: InMemoryExperimentStore, path: Path) -> Experiments:
    return Experiments(store, router.journal, router.catalog, router.clock, path=path)


def sent(router) -> list[str]:
    return [EXPERIMENTS.decode(record.value).status for record in router.records() if record.topic == EXPERIMENTS.name]


async def test_a_router_goes_on_from_the_copy_until_the_database_is_there(router, tmp_path):
    path, store = tmp_path / "copies" / "experiments.json", Away()
    store.is_away = False
    first = opened(router, store, path)
    await first.create(NEW)
    running = await first.start("e")
    kept = len(sent(router))
    store.is_away = True
    second = opened(router, store, path)
    await second.open()
    assert (second.is_known, second.is_stale) == (True, True)
    assert second.in_force("late") == (running,)
    assert second.find("e") == running
    with pytest.raises(ExperimentStoreError):
        await second.stop("e")
    assert len(sent(router)) == kept  # an old revision would replace a newer one in the compacted topic
    store.is_away = False
    await first.stop("e")
    await second.refresh()
    assert (second.is_stale, second.in_force("late")) == (False, ())
    assert sent(router)[-1] == "stopped"


async def test_the_copy_is_written_after_a_change_alone_and_always_whole(router, tmp_path):
    path, store = tmp_path / "experiments.json", InMemoryExperimentStore()
    experiments = opened(router, store, path)
    await experiments.create(NEW)
    written = path.stat()
    await experiments.refresh()
    assert path.stat().st_ino == written.st_ino
    await experiments.start("e")
    assert path.stat().st_ino != written.st_ino
    assert msgspec.json.decode(path.read_bytes(), type=list[ExperimentRevision]) == experiments.all()
    other = opened(router, store, path)
    await other.open()
    await other.stop("e")
    await experiments.refresh()
    (copied,) = msgspec.json.decode(path.read_bytes(), type=list[ExperimentRevision])
    assert copied.status == "stopped"
    assert list(tmp_path.glob("*.new")) == []


@pytest.mark.parametrize("content", [b"", b"[{", b'{"a": 1}', b"\xff\xfe", b"[" * 2_000])
async def test_a_copy_that_can_not_be_read_is_none(router, tmp_path, content):
    path, store = tmp_path / "experiments.json", Away()
    path.write_bytes(content)
    experiments = opened(router, store, path)
    await experiments.open()
    assert (experiments.is_known, experiments.all()) == (False, [])
    store.is_away = False
    await experiments.refresh()
    assert (experiments.is_known, path.read_bytes()) == (True, b"[]")


async def test_a_disk_that_takes_no_copy_stops_no_change(router, tmp_path):
    (tmp_path / "file").write_text("no folder")
    experiments = opened(router, InMemoryExperimentStore(), tmp_path / "file" / "experiments.json")
    assert (await experiments.create(NEW)).status == "draft"


# The whole router, with nothing else there


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """A port that takes connections and never answers."""
    over = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()


@asynccontextmanager
async def alone(folder: Path, database: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a router without Kafka, features, models and, for now, its database."""
    kafka, features, inference = free_ports(3)
    settings = RouterSettings(
        data=folder,
        database=database,
        database_timeout_s=0.5,
        kafka=f"127.0.0.1:{kafka}",
        feature_service_port=features,
        inference_service_port=inference,
        refresh_s=0.05,
        unready_after_s=1_000,
    )
    async with client_for(create_app(settings)) as client:
        yield client


def leave_copies(folder: Path) -> None:
    """The files of a router that ran before."""
    own = folder / "ab_router"
    own.mkdir(parents=True)
    own.joinpath("catalog.json").write_bytes(msgspec.json.encode(CatalogCopy(VERSIONS)))
    running = started(draft(NEW, {one.version: one for one in VERSIONS}, seed="s", now=1.0), 2.0)
    own.joinpath("experiments.json").write_bytes(msgspec.json.encode([running]))


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_a_router_starts_in_time_while_postgresql_is_frozen_or_away(tmp_path, is_frozen):
    leave_copies(tmp_path)
    async with silent_server() as silent_port:
        port = silent_port if is_frozen else free_ports(1)[0]
        began = monotonic()
        async with alone(tmp_path, f"postgresql+asyncpg://u:p@127.0.0.1:{port}/x") as client:
            assert monotonic() - began < 20
            assert (await client.get("/v1/experiments/e")).json()["status"] == "running"
            ready = await client.get("/readyz")
            assert (ready.status_code, "database" in ready.json()["remarks"][0]) == (200, True)
            began = monotonic()
            refused = await client.post("/v1/experiments/e/stop")
            assert (refused.status_code, refused.json()["type"]) == (503, "/problems/experiments-unavailable")
            assert monotonic() - began < 20


async def test_a_router_serves_while_its_database_is_locked_and_changes_experiments_afterwards(tmp_path):
    leave_copies(tmp_path)
    path = tmp_path / "store.db"
    async with asyncio.timeout(120):
        with closing(sqlite3.connect(path, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            async with alone(tmp_path, f"sqlite+aiosqlite:///{path}") as client:
                answer = (await client.post("/v1/models/late/predict", json=ROW)).json()
                assert (answer["experiment"], answer["outputs"]["score"]) == ("e", 0.25)
                body = msgspec.to_builtins(msgspec.structs.replace(NEW, name="f"))
                assert (await client.post("/v1/experiments", json=body)).status_code == 503
                lock.execute("ROLLBACK")
                while (await client.post("/v1/experiments", json=body)).status_code != 201:
                    await asyncio.sleep(0.01)
                assert "remarks" not in (await client.get("/readyz")).json()


async def test_a_router_that_knows_no_experiments_is_ready_once_it_has_read_them(tmp_path):
    path = tmp_path / "store.db"
    async with asyncio.timeout(120):
        with closing(sqlite3.connect(path, isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            async with alone(tmp_path, f"sqlite+aiosqlite:///{path}") as client:
                unready = await client.get("/readyz")
                assert unready.status_code == 503
                assert "no copy of them on disk" in unready.json()["detail"]
                lock.execute("ROLLBACK")
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
