"""The router's counts of its traffic in a real Valkey: over restarts, and while it is frozen."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from contender.contracts.ab_router import PredictionRow
from contender.contracts.inference_service import InputColumn, ModelVersion
from embedded.ports import free_ports
from embedded.valkey import Valkey
from services.ab_router.catalog import CatalogCopy
from services.ab_router.errors import ModelUnavailableError
from services.ab_router.main import State, open_resources
from services.ab_router.settings import RouterSettings
from shared.errors import Unavailable

LATE = ModelVersion(
    model="late",
    version="aaa",
    task="binary",
    inputs=[InputColumn("distance", "float")],
    classes=[0, 1],
    registered_at=1.0,
    champion=True,
)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of its own, which may be stopped."""
    (tmp_path / "valkey").mkdir()
    server = Valkey(tmp_path / "valkey", free_ports(1)[0])
    server.start()
    try:
        server.wait_ready(60)
        yield server
    finally:
        server.kill()


@pytest.fixture
def settings(tmp_path: Path, valkey: Valkey) -> RouterSettings:
    """Nothing else answers, but the router knows a model from its disk."""
    nobody = [f"http://127.0.0.1:{port}" for port in free_ports(3)]
    settings = RouterSettings(
        data=tmp_path,
        redis=valkey.url,
        kafka="127.0.0.1:1",
        inference_service_url=nobody[0],
        feature_service_url=nobody[1],
        feedback_service_url=nobody[2],
        traffic_timeout_s=0.5,
        traffic_flush_s=0.05,
    )
    path = settings.folder("ab_router") / "catalog.json"
    path.write_bytes(msgspec.json.encode(CatalogCopy(versions=[LATE])))
    return settings


async def ask(state: State, rows: int) -> float:
    """Ask for predictions, which nobody answers; returns the seconds that it took."""
    asked_at = monotonic()
    with pytest.raises(ModelUnavailableError):
        await state["predict"].rows("late", [PredictionRow("u", {}, {"distance": 1.0})] * rows)
    return monotonic() - asked_at


async def counted(state: State, rows: int) -> None:
    """Return when so many rows are counted; more than those never are."""
    async with asyncio.timeout(60):
        while True:
            try:
                traffic = await state["readiness"].show("late")
            except Unavailable:
                traffic = None
            if traffic is not None:
                assert traffic.rows <= rows
                if traffic.rows == rows:
                    assert traffic.columns["distance"].sent == 1.0
                    return
            await asyncio.sleep(0.05)


async def test_counts_outlast_restarts_and_a_frozen_valkey_costs_no_prediction_and_no_count(settings, valkey):
    async with open_resources(settings) as state:
        await ask(state, 10)
    async with open_resources(settings) as state:
        await ask(state, 100)
        await counted(state, 110)
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            for _ in range(20):
                assert await ask(state, 50) < settings.traffic_timeout_s
            with pytest.raises(Unavailable, match="can't be reached"):
                await state["readiness"].show("late")
            assert await ask(state, 1) < settings.traffic_timeout_s
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        await counted(state, 1_111)
