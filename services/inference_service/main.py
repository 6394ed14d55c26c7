"""Composition root of the inference service."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI

from contender.contracts.inference_service import ModelVersion
from services.inference_service import api, oip
from services.inference_service.errors import PROBLEMS, RegistryError
from services.inference_service.handlers import Announce, Models
from services.inference_service.runtime import Runtime
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import ModelFiles, VersionStore, open_sql_store
from services.inference_service.trials import Trials
from shared.clock import Clock, SystemClock
from shared.http import create_app as create_http_app
from shared.ids import new_frame_id
from shared.journal import Journal
from shared.publisher import Publisher
from shared.topics import MODELS, cloud_event_headers

_NEARLY_FULL = 0.95


class State(TypedDict):
    """What a request finds in its state."""

    models: Models
    journal: Journal


Resources = Callable[[InferenceSettings], AbstractAsyncContextManager[State]]


@asynccontextmanager
async def open_resources(settings: InferenceSettings) -> AsyncIterator[State]:
    """Open the journal, its publisher and the registry."""
    journal = Journal.open(settings.folder("inference_service") / "journal", limit_bytes=settings.journal_limit_bytes)
    publisher = Publisher(
        journal,
        settings.kafka,
        partitions=settings.partitions,
        replication=settings.replication,
        retention=settings.retention,
    )
    try:
        async with open_sql_store(settings.database_url("inference_service")) as store, publisher:
            state = state_of(settings, store, journal, SystemClock())
            try:
                yield state
            finally:
                await state["models"].runtime.close()
    finally:
        journal.close()


def state_of(settings: InferenceSettings, store: VersionStore, journal: Journal, clock: Clock) -> State:
    """The use cases over their dependencies."""
    files = ModelFiles(settings.folder("inference_service") / "models")
    trials = Trials(settings)
    runtime = Runtime(files, trials, settings)
    models = Models(store, files, runtime, trials, _announcing(journal, clock), clock, settings)
    return State(models=models, journal=journal)


def create_app(settings: InferenceSettings, resources: Resources = open_resources) -> FastAPI:
    """The web application.

    Args:
        settings: read once at start.
        resources: opens what the requests need; tests give their own.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with resources(settings) as state:
            yield state

    app = create_http_app(
        service="inference_service",
        title="Contender inference",
        lifespan=lifespan,
        problems=PROBLEMS,
        ready=unready,
        remarks=remarks,
    )
    app.include_router(api.router)
    app.include_router(oip.router)
    oip.render_errors(app)
    return app


async def unready(state: Mapping[str, Any]) -> list[str]:
    """Why the process can't do its job."""
    models: Models = state["models"]
    journal: Journal = state["journal"]
    reasons = []
    try:
        await models.models()
    except RegistryError as error:
        reasons.append(error.detail)
    if journal.unsent_bytes > _NEARLY_FULL * journal.limit_bytes:
        reasons.append("the journal is full because Kafka has not taken events for a while")
    if fault := journal.fault:
        reasons.append(fault)
    return reasons


def remarks(state: Mapping[str, Any]) -> list[str]:
    """What an operator should know of a process that is ready."""
    journal: Journal = state["journal"]
    models: Models = state["models"]
    unreadable = [
        f"the registry's row of model {row.model}, version {row.version}, can't be read: {row.reason}"
        for row in models.unreadable
    ]
    return [*journal.remarks, *unreadable]


def _announcing(journal: Journal, clock: Clock) -> Announce:
    async def announce(version: ModelVersion) -> None:
        # The topic is compacted, and two models may have the same ONNX file: its hash alone is no key.
        key = f"{version.model}/{version.version}".encode()
        headers = cloud_event_headers(MODELS, new_frame_id(clock.now()))
        journal.append(MODELS.name, 0, key, headers, MODELS.encode(version))
        await journal.flush()

    return announce
