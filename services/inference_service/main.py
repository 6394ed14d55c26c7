"""Composition root of the inference service."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI

from services.inference_service import api, errors, files, oip, promotions
from services.inference_service.handlers import Models
from services.inference_service.runtime import Runtime
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import VersionStore, open_sql_store
from services.inference_service.trials import Trials
from shared.clock import Clock, SystemClock
from shared.http import create_app as create_http_app


class State(TypedDict):
    """What a request finds in its state."""

    models: Models
    champions: promotions.Champions
    settings: InferenceSettings


Resources = Callable[[InferenceSettings], AbstractAsyncContextManager[State]]


@asynccontextmanager
async def open_resources(settings: InferenceSettings) -> AsyncIterator[State]:
    """Open the registry."""
    async with open_sql_store(settings.database_url("inference_service")) as store:
        state = state_of(settings, store, SystemClock())
        try:
            yield state
        finally:
            await state["models"].runtime.close()


def state_of(settings: InferenceSettings, store: VersionStore, clock: Clock) -> State:
    """The use cases over their dependencies."""
    kept = files.ModelFiles(settings.folder("inference_service") / "models")
    trials = Trials(settings)
    models = Models(store, kept, Runtime(kept, trials, settings), trials, clock, settings)
    return State(models=models, champions=promotions.Champions(models), settings=settings)


def create_app(settings: InferenceSettings, resources: Resources = open_resources) -> FastAPI:
    """The web application.

    Args:
        settings: read once at start.
        resources: opens what the requests need; tests give their own.
    """
    app = create_http_app(
        service="inference_service",
        title="Contender inference",
        lifespan=lambda _: resources(settings),
        routes=[api.routes, oip.routes],
        problems=errors.PROBLEMS,
        ready=unready,
        remarks=remarks,
    )
    oip.render_errors(app)
    return app


async def unready(state: Mapping[str, Any]) -> list[str]:
    """Why the process can't do its job."""
    models: Models = state["models"]
    try:
        await models.models()
    except errors.RegistryError as error:
        return [error.detail]
    return []


def remarks(state: Mapping[str, Any]) -> list[str]:
    """What an operator should know of a process that is ready."""
    models: Models = state["models"]
    return [
        f"the registry's row of model {row.model}, version {row.version}, can't be read: {row.reason}"
        for row in models.unreadable
    ]
