"""The router and the inference service as they are, behind real sockets in this process: no Kafka, SQLite each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contender.contracts.inference_service import Manifest, ModelVersion, VersionDetails
from contender.registration import Export
from embedded.ports import free_ports
from services.ab_router.main import create_app as create_router
from services.ab_router.settings import RouterSettings
from services.inference_service.domain.cost import TrialRecord
from services.inference_service.main import create_app as create_inference
from services.inference_service.main import open_resources
from services.inference_service.settings import InferenceSettings


@dataclass(frozen=True)
class Servers:
    """Clients of both, and the variables that tell the command line where they are."""

    router: httpx.AsyncClient
    inference: httpx.AsyncClient
    environment: dict[str, str]


@asynccontextmanager
async def running(folder: Path, model: str = "m", exports: tuple[Export, ...] = ()) -> AsyncIterator[Servers]:
    """Both services in a folder of their own; `exports` are registered as versions of a model before they start."""
    router_port, inference_port, features_port, nothing = free_ports(4)
    urls = {
        "CONTENDER_URL": f"http://127.0.0.1:{router_port}",
        "CONTENDER_INFERENCE_SERVICE_URL": f"http://127.0.0.1:{inference_port}",
        "CONTENDER_FEATURE_SERVICE_URL": f"http://127.0.0.1:{features_port}",
    }
    inference_settings = InferenceSettings(data=folder)
    router_settings = RouterSettings(
        data=folder,
        kafka=f"127.0.0.1:{nothing}",
        inference_service_url=urls["CONTENDER_INFERENCE_SERVICE_URL"],
        feature_service_url=urls["CONTENDER_FEATURE_SERVICE_URL"],
        refresh_s=0.2,
    )
    await _register(inference_settings, model, exports)
    async with (
        _serving(_without_features(), features_port),
        _serving(create_inference(inference_settings), inference_port) as inference,
        _serving(create_router(router_settings), router_port) as router,
    ):
        yield Servers(router, inference, urls)


def _without_features() -> Starlette:
    async def definitions(_: Request) -> Response:
        return JSONResponse({"views": []})

    return Starlette(routes=[Route("/v1/definitions", definitions)])


@asynccontextmanager
async def _serving(app: FastAPI | Starlette, port: int) -> AsyncIterator[httpx.AsyncClient]:
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await task


async def _register(settings: InferenceSettings, model: str, exports: tuple[Export, ...]) -> None:
    """Keep versions without a trial: by their records they may run in the web process."""
    async with open_resources(settings) as state:
        models = state["models"]
        for export in exports:
            known = msgspec.convert(export.manifest, Manifest)
            version = ModelVersion(
                model=model, version=export.version, task=known.task, inputs=known.inputs, registered_at=1.0
            )
            models.files.write(export.version, export.onnx)
            models.files.write_upload(model, export.version, export.onnx, msgspec.json.encode(export.sample))
            models.files.write_record(model, export.version, TrialRecord(bounded=True, opening_ms=1.0, row_ms=0.01))
            await models.store.add(VersionDetails.of(version, export.manifest))
