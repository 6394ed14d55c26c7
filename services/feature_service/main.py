"""Composition root: the one module that knows every other."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from typing import Any

from fastapi import FastAPI
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from contender.features import Catalogue
from services.feature_service import api, pages
from services.feature_service.api import State
from services.feature_service.consistency import Consistency
from services.feature_service.definitions import Definitions
from services.feature_service.errors import PROBLEMS, CheckRunningError
from services.feature_service.event_log import kafka_event_log
from services.feature_service.handlers import Intake, Merging
from services.feature_service.health import Health
from services.feature_service.on_demand import Failures
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.settings import FeatureSettings
from services.feature_service.status import StatusReader
from services.feature_service.store import FeatureStore, Registry
from services.feature_service.store.reading import BreakingReader
from services.feature_service.store.redis import RedisClusterStore, RedisStore
from services.feature_service.store.registry import open_sql_registry
from services.feature_service.sweeping import Sweeper
from services.feature_service.worker import create_worker
from shared import http
from shared.background import run_every
from shared.clock import Clock, SystemClock
from shared.journal import Journal
from shared.processes import run_web
from shared.publisher import Publisher
from shared.topic_admin import ensure_topics
from shared.worker_process import run_worker

# Longer than the ten seconds within which Redis must confirm writes on its disk.
_WORKER_STORE_TIMEOUT_S = 15.0
# The rings of 50 rows are some 256 kB; read in pieces of the default 64 kB they take 30 us longer.
_READ_BYTES = 512 * 1024
# Longer than any worker takes to read changed definitions.
_SWEEP_S = 60.0
Resources = Callable[[], AbstractAsyncContextManager[State]]


def create_app(resources: Resources) -> FastAPI:
    """The web application; `resources` opens its state."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with resources() as state:
            yield state

    app = http.create_app(
        service="feature_service",
        title="Contender features",
        lifespan=lifespan,
        routes=[api.routes],
        problems=PROBLEMS,
        ready=_ready,
        remarks=lambda state: state["intake"].journal.remarks,
    )
    app.include_router(pages.pages)
    return app


def state_of(
    settings: FeatureSettings, definitions: Definitions, store: FeatureStore, journal: Journal, clock: Clock
) -> State:
    """Put the web process's parts together."""
    log = kafka_event_log(settings.kafka, settings.partitions)
    return State(
        settings=settings,
        definitions=definitions,
        store=store,
        reader=BreakingReader(store, settings.store_read_timeout_s),
        intake=Intake(definitions, journal, clock, settings.partitions, settings.future_s),
        failures=Failures(),
        consistency=Consistency(
            definitions, store, log, clock, settings.partitions, settings.write_lag_s, settings.future_s
        ),
        status=StatusReader(definitions, store, clock),
        clock=clock,
    )


def web_resources(settings: FeatureSettings) -> Resources:
    """Opens what the web process needs: Redis, the registry, and a journal that is shipped to Kafka."""

    @asynccontextmanager
    async def open_resources() -> AsyncIterator[State]:
        folder = settings.folder("feature_service") / "journal"
        journal = await asyncio.to_thread(Journal.open, folder, limit_bytes=settings.journal_limit_bytes)
        try:
            async with (
                aclosing(_store(settings, settings.store_timeout_s, Retry(NoBackoff(), 1))) as store,
                open_sql_registry(settings.database_url("feature_service")) as registry,
                Publisher.from_settings(journal, settings),
            ):
                definitions = _definitions(settings, registry, store)
                await definitions.open()
                state = state_of(settings, definitions, store, journal, SystemClock())
                async with (
                    run_every(definitions.refresh, settings.refresh_s),
                    run_every(Sweeper(definitions, store).sweep, _SWEEP_S),
                    _count_entities(state),
                    _check_served(state),
                ):
                    yield state
        finally:
            journal.close()

    return open_resources


def serve_web(settings: FeatureSettings) -> None:
    """Run the web process.

    Raises:
        DefinitionError: the definitions are invalid.
    """
    Catalogue.load(settings.features)  # invalid definitions stop the start before anything is opened
    run_web(create_app(web_resources(settings)), settings, "feature_service")


def serve_worker(settings: FeatureSettings) -> None:
    """Run the worker.

    Raises:
        DefinitionError: the definitions are invalid.
    """
    Catalogue.load(settings.features)
    store = _store(settings, _WORKER_STORE_TIMEOUT_S)

    @asynccontextmanager
    async def open_resources() -> AsyncIterator[Merging]:
        async with aclosing(store), open_sql_registry(settings.database_url("feature_service")) as registry:
            definitions = _definitions(settings, registry, store)
            await definitions.open()
            yield Merging(definitions, store, PartitionOwnership(store), clock, settings.future_s)

    health, clock = Health(), SystemClock()

    async def ready() -> list[str]:
        reasons = [] if await store.is_ready() else ["Redis does not answer"]
        return [*reasons, *health.not_ready(clock.now())]

    asyncio.run(
        ensure_topics(
            settings.kafka,
            partitions=settings.partitions,
            replication=settings.replication,
            retention=settings.retention,
        )
    )
    run_worker(lambda: create_worker(settings, open_resources, health), settings, "feature_service", ready=ready)


async def _ready(state: Mapping[str, Any]) -> list[str]:
    store: FeatureStore = state["store"]
    intake: Intake = state["intake"]
    reasons = [] if await store.is_ready() else ["Redis does not answer"]
    reasons += intake.journal.unready_reasons
    if fault := intake.definitions.fault:
        reasons.append(fault)
    return reasons


def _count_entities(state: State) -> AbstractAsyncContextManager[None]:
    """Count the entities of every view at intervals."""
    every_s = state["settings"].entities_every_s
    return run_every(state["status"].count_entities, every_s) if every_s else nullcontext()


def _check_served(state: State) -> AbstractAsyncContextManager[None]:
    """Compare served values with history at intervals; /metrics has the results."""
    settings = state["settings"]
    every_s = settings.consistency_every_s

    async def check() -> None:
        with suppress(CheckRunningError):  # a caller's check runs, and updates /metrics as well
            await state["consistency"].check(settings.consistency_sample)

    # Nothing has been served yet at the start.
    return run_every(check, every_s, first_s=every_s) if every_s else nullcontext()


def _definitions(settings: FeatureSettings, registry: Registry, store: FeatureStore) -> Definitions:
    return Definitions(settings.features, registry, store, settings.partitions, future_s=settings.future_s)


def _store(settings: FeatureSettings, timeout_s: float, retry: Retry | None = None) -> RedisStore:
    timeouts: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    options: dict[str, Any] = {"seen_ttl_s": settings.seen_ttl_s, "replicas": settings.redis_replicas}
    if settings.redis_cluster:
        return RedisClusterStore(RedisCluster.from_url(settings.redis, **timeouts), **options)
    if retry is not None:  # the client's own pauses for seconds between its tries, while a caller waits
        timeouts["retry"] = retry
    client = Redis.from_url(settings.redis, socket_read_size=_READ_BYTES, **timeouts)
    return RedisStore(client, **options)
