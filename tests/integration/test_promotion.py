"""A promotion under load: the router and the inference service as they are, the registry in SQLite, and no Kafka."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import uvicorn
from fastapi import FastAPI
from onnx import helper

from contender.contracts.inference_service import Manifest, ModelVersion, VersionDetails
from embedded.ports import free_ports
from services.ab_router.main import create_app as create_router
from services.ab_router.settings import RouterSettings
from services.inference_service.domain.cost import TrialRecord
from services.inference_service.main import create_app as create_inference
from services.inference_service.main import open_resources
from services.inference_service.settings import InferenceSettings
from tests.unit.inference_service.graphs import export, small

CALLERS = 8


@asynccontextmanager
async def serving(app: FastAPI, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """The application behind a real socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await running


async def test_no_request_is_dropped_by_a_promotion_and_a_rollback(tmp_path: Path):
    inference_port, router_port, nothing = free_ports(3)
    url = f"http://127.0.0.1:{inference_port}"
    inference_settings = InferenceSettings(data=tmp_path)
    router_settings = RouterSettings(
        data=tmp_path, kafka=f"127.0.0.1:{nothing}", inference_service_url=url, refresh_s=0.2
    )
    versions = await _registered(inference_settings)
    async with (
        serving(create_inference(inference_settings), inference_port) as inference,
        serving(create_router(router_settings), router_port) as router,
    ):
        answered: Counter[str] = Counter()
        ended = asyncio.Event()

        async def ask() -> None:
            while not ended.is_set():
                answer = await router.post("/v1/models/m/predict", json={"unit": "u", "inputs": {"x": 1.5}})
                answered[answer.json()["version"] if answer.status_code == 200 else answer.text] += 1

        async def answered_by(version: str) -> None:
            before = answered[version]
            while answered[version] < before + 50:
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            for _ in range(CALLERS):
                group.create_task(ask())
            await answered_by(versions[0])
            promoted = await inference.put("/v1/models/m/aliases/champion", json={"version": versions[1]})
            await answered_by(versions[1])
            back = await inference.post("/v1/models/m/aliases/champion/rollback")
            await answered_by(versions[0])
            ended.set()
        assert (promoted.json()["version"], back.json()["version"]) == (versions[1], versions[0])
        assert answered.keys() == set(versions)


async def _registered(settings: InferenceSettings) -> list[str]:
    """Two versions of the model m, the first its champion; a trial has found that they may run in the web process."""
    names = []
    async with open_resources(settings) as state:
        models = state["models"]
        for uploaded in (small(), export(helper.make_node("Neg", ["x"], ["y"]))):
            manifest = msgspec.convert(uploaded.manifest, Manifest)
            version = ModelVersion(
                model="m", version=uploaded.version, task=manifest.task, inputs=manifest.inputs, registered_at=1.0
            )
            models.files.write(uploaded.version, uploaded.onnx)
            models.files.write_record("m", uploaded.version, TrialRecord(bounded=True, opening_ms=1.0, row_ms=0.01))
            await models.store.add(VersionDetails.of(version, uploaded.manifest))
            names.append(uploaded.version)
    return names
