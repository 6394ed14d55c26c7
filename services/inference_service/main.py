"""Composition root of the inference service."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI

from services.inference_service import api, oip
from services.inference_service.handlers import Models
from services.inference_service.runtime import Sessions
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import ModelFiles, open_sql_store
from shared.clock import Clock, SystemClock
from shared.events import ModelVersion
from shared.http import create_app as create_http_app
from shared.ids import new_frame_id
from shared.journal import Journal
from shared.publisher import Publisher
from shared.topics import MODELS, cloud_event_headers


class State(TypedDict):
    """What the lifespan opens."""

    models: Models
    journal: Journal


def create_app(settings: InferenceSettings, clock: Clock | None = None) -> FastAPI:
    """The service's HTTP application."""
    clock = clock or SystemClock()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        folder = settings.folder("inference_service")
        journal = Journal.open(folder / "journal", limit_bytes=settings.journal_limit_bytes)

        async def announce(version: ModelVersion) -> None:
            headers = cloud_event_headers(MODELS, new_frame_id(clock.now()))
            journal.append(MODELS.name, 0, version.version.encode(), headers, MODELS.encode(version))
            await journal.flush()

        publisher = Publisher(journal, settings.kafka, partitions=settings.partitions, replication=settings.replication)
        async with open_sql_store(settings.database_url("inference_service")) as store, publisher:
            files = ModelFiles(folder / "models")
            sessions = Sessions(settings.session_limit)
            yield State(models=Models(store, files, sessions, announce, clock, settings), journal=journal)
        journal.close()

    app = create_http_app(service="inference_service", title="Contender inference", lifespan=lifespan, ready=_ready)
    app.include_router(api.router)
    app.include_router(oip.router)
    app.add_exception_handler(oip.OpenInferenceError, oip.render_error)
    return app


async def _ready(state: Mapping[str, Any]) -> list[str]:
    models: Models = state["models"]
    await models.models()
    return []
