"""Composition root of the router."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypedDict

import httpx
from fastapi import FastAPI
from httpx_aiohttp import AiohttpTransport
from sqlalchemy.exc import SQLAlchemyError

from services.ab_router import api
from services.ab_router.catalog import Catalog
from services.ab_router.clients import HttpFeatures, HttpInference
from services.ab_router.experiments import Experiments
from services.ab_router.predictions import Predict
from services.ab_router.scoring import Scorer
from services.ab_router.settings import RouterSettings
from services.ab_router.store import open_sql_store
from shared.clock import SystemClock
from shared.http import create_app as create_http_app
from shared.journal import FULL_REASON, Journal
from shared.publisher import Publisher

_LOG = logging.getLogger(__name__)


class State(TypedDict):
    """What a request finds in its state."""

    settings: RouterSettings
    predict: Predict
    experiments: Experiments
    catalog: Catalog
    journal: Journal


Resources = Callable[[RouterSettings], AbstractAsyncContextManager[State]]


@asynccontextmanager
async def open_resources(settings: RouterSettings) -> AsyncIterator[State]:
    """Open the journal, its publisher, the store and the clients of the other services."""
    folder = settings.folder("ab_router")
    clock = SystemClock()
    journal = Journal.open(folder / "journal", limit_bytes=settings.journal_limit_bytes)
    publisher = Publisher(
        journal,
        settings.kafka,
        partitions=settings.partitions,
        replication=settings.replication,
        retention=settings.retention,
    )
    # httpx's own transport spends three times as much processor time per call as aiohttp's.
    async with (
        httpx.AsyncClient(transport=AiohttpTransport()) as client,
        open_sql_store(settings.database_url("ab_router")) as store,
        publisher,
    ):
        features = HttpFeatures(client, settings.url("feature_service"), settings.feature_timeout_s)
        inference = HttpInference(client, settings.url("inference_service"), settings.inference_timeout_s)
        async with Catalog(inference, features, folder / "catalog.json", settings.refresh_s) as catalog:
            experiments = Experiments(store, journal, catalog, clock)
            await experiments.refresh()
            await experiments.republish()
            predict = Predict(
                catalog=catalog,
                experiments=experiments,
                scorer=Scorer(features, inference, catalog),
                journal=journal,
                clock=clock,
                settings=settings,
            )
            async with predict.batcher, _kept_fresh(experiments, settings.refresh_s):
                yield State(
                    settings=settings, predict=predict, experiments=experiments, catalog=catalog, journal=journal
                )
    journal.close()


def create_app(settings: RouterSettings, resources: Resources = open_resources) -> FastAPI:
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
        service="ab_router", title="Contender router", lifespan=lifespan, ready=unready, remarks=remarks
    )
    app.include_router(api.router)
    app.include_router(api.experiments_router)
    return app


async def unready(state: Mapping[str, Any]) -> list[str]:
    """Why predictions can't be made. A service that is away is no reason: fallbacks answer for it."""
    journal: Journal = state["journal"]
    return [FULL_REASON] if journal.nearly_full else []


def remarks(state: Mapping[str, Any]) -> list[str]:
    """What an operator should know of a router that is ready."""
    journal: Journal = state["journal"]
    return journal.remarks


@asynccontextmanager
async def _kept_fresh(experiments: Experiments, every_s: float) -> AsyncIterator[None]:
    """Read what other routers have changed."""

    async def run() -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await experiments.refresh()
            except SQLAlchemyError as error:
                _LOG.warning("experiments can't be read again, the last known go on: %s", error)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
