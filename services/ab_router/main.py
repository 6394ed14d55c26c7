"""Composition root of the router."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final, TypedDict

from fastapi import FastAPI

from services.ab_router import (
    api,
    control,
    errors,
    exploration,
    handlers,
    http_clients,
    ofrep,
    plans,
    results_client,
    scoring,
    shadows,
    store,
    stored_answers,
    stored_traffic,
    traffic,
    verdict_actions,
)
from services.ab_router.catalog import Catalog
from services.ab_router.deduplication import Deduplication
from services.ab_router.domain.assignment import stopped_lately
from services.ab_router.settings import RouterSettings
from services.ab_router.sticky import StickyUnits, open_sticky_units
from services.ab_router.stored_assignments import RedisAssignments
from shared import http, processes, topic_admin
from shared.background import run_every, until_available
from shared.clock import Clock, SystemClock
from shared.http_client import ServiceClient
from shared.journal import Journal
from shared.publisher import Publisher

SERVICE: Final = "ab_router"
_READINGS = 4
"""Connections for the catalog's own calls."""
_RETRY_S = 1.0
Control = tuple[verdict_actions.VerdictActions, control.Controller]
"""What the worker does."""
_FORGET_EVERY_S = 30.0
"""How often the units of stopped experiments are deleted: nobody waits for it."""
_PLANS = 4
"""Connections for plans of experiments, which few people ask for at once."""


class State(TypedDict):
    """What a request finds in its state."""

    settings: RouterSettings
    predict: handlers.Predict
    experiments: handlers.Experiments
    readiness: handlers.Readiness
    catalog: Catalog
    journal: Journal
    deduplication: Deduplication


Resources = Callable[[RouterSettings], AbstractAsyncContextManager[State]]


@asynccontextmanager
async def open_resources(settings: RouterSettings) -> AsyncIterator[State]:
    """Open the journal, its publisher, the store and the clients of the other services."""
    folder, clock = settings.folder(SERVICE), SystemClock()
    # A version that hangs must not hold another's; beside the answers it gets one micro-batch in shadow.
    connections = settings.version_limit * (settings.senders + 1) + _READINGS
    with closing(Journal.open(folder / "journal", limit_bytes=settings.journal_limit_bytes)) as journal:
        publisher = Publisher.from_settings(journal, settings)
        async with (
            ServiceClient(settings.url("feature_service"), connections) as features_client,
            ServiceClient(settings.url("inference_service"), connections) as inference_client,
            store.open_sql_store(settings.database_url(SERVICE), settings.database_timeout_s) as experiment_store,
            stored_answers.open_redis_store(
                settings.redis, settings.request_ids_timeout_s, is_cluster=settings.redis_cluster
            ) as answer_store,
            publisher,
            ServiceClient(settings.url("feedback_service"), _PLANS) as feedback_client,
            stored_traffic.RedisTraffic.connect(
                settings.redis, settings.traffic_timeout_s, cluster=settings.redis_cluster
            ) as traffic_store,
            traffic.Traffic(traffic_store, clock) as counted,
            _first_assignments(settings) as sticky,
        ):
            features = http_clients.HttpFeatures(features_client, settings.feature_timeout_s, settings.body_limit_bytes)
            inference = http_clients.HttpInference(
                inference_client, settings.inference_timeout_s, settings.body_limit_bytes
            )
            path = folder / "catalog.json"
            async with Catalog(
                inference,
                features,
                path,
                settings.refresh_s,
                settings.reread_s,
                start_wait_s=settings.start_wait_s,
            ) as catalog:
                copy = folder / "experiments.json"
                readiness = handlers.Readiness(
                    counted,
                    catalog,
                    plans.HttpPlans(feedback_client, settings.plan_timeout_s),
                    settings.challenger_deadline_s,
                )
                experiments = handlers.Experiments(
                    experiment_store, journal, catalog, clock, traffic=readiness, path=copy
                )
                await experiments.open()
                scorer, shadow_scorer = (
                    scoring.Scorer(features, inference, catalog, settings, note_features=counted.note_features)
                    for _ in range(2)
                )
                predict = handlers.Predict(
                    catalog=catalog,
                    experiments=experiments,
                    sticky=sticky,
                    scorer=scorer,
                    exploration=exploration.Exploration(),
                    shadows=shadows.Shadows(shadow_scorer, journal, clock, settings, note_latency=counted.note_shadow),
                    traffic=counted,
                    journal=journal,
                    clock=clock,
                    settings=settings,
                )
                forgetting = _forgetting(sticky, experiments, clock)
                deduplication = Deduplication(answer_store, settings)
                adding = run_every(counted.flush, settings.traffic_flush_s, name="add counts of traffic")
                async with adding, predict, deduplication, _kept_fresh(experiments, settings.refresh_s), forgetting:
                    yield State(
                        settings=settings,
                        predict=predict,
                        experiments=experiments,
                        catalog=catalog,
                        journal=journal,
                        deduplication=deduplication,
                        readiness=readiness,
                    )


def create_app(settings: RouterSettings, resources: Resources = open_resources) -> FastAPI:
    """The web application.

    Args:
        settings: read once at start.
        resources: opens what the requests need; tests give their own.
    """
    app = http.create_app(
        service=SERVICE,
        title="Contender router",
        lifespan=lambda _: resources(settings),
        routes=[api.routes, ofrep.routes],
        problems=errors.PROBLEMS,
        ready=unready,
        remarks=remarks,
    )
    ofrep.render_errors(app)
    return app


def serve_web(settings: RouterSettings) -> None:
    """Serve predictions and experiments; at the end each call gets its deadline."""
    processes.run_web(create_app(settings), settings, SERVICE, finish_s=settings.finish_s)


def serve_worker(settings: RouterSettings) -> None:
    """Act on verdicts, and move the traffic of canaries and bandits, until SIGTERM."""
    # Faust takes 12 MB, and the web process does without.
    from services.ab_router.worker import create_worker  # noqa: PLC0415
    from shared.worker_process import run_worker  # noqa: PLC0415

    asyncio.run(
        topic_admin.ensure_topics(
            settings.kafka,
            partitions=settings.partitions,
            replication=settings.replication,
            retention=settings.retention,
        )
    )
    # Workers on one machine differ in their port, and each finds its own folder again.
    folder = settings.folder(SERVICE) / f"worker-{settings.worker_port(SERVICE)}"

    opened: list[handlers.Experiments] = []

    @asynccontextmanager
    async def resources(is_in_charge: Callable[[], bool]) -> AsyncIterator[Control]:
        async with open_control(settings, folder, is_in_charge) as control:
            opened.append(control[1].experiments)
            yield control

    async def ready() -> list[str]:
        is_read = bool(opened) and not opened[-1].is_stale
        return [] if is_read else ["the database of experiments does not answer"]

    run_worker(lambda: create_worker(settings, resources, folder), settings, SERVICE, ready=ready)


@asynccontextmanager
async def open_control(
    settings: RouterSettings, folder: Path, is_in_charge: Callable[[], bool]
) -> AsyncIterator[Control]:
    """Open what the worker uses: the database, a journal of its own with its publisher, and the client of the results.

    Args:
        settings: addresses and timeouts.
        folder: the worker's own.
        is_in_charge: whether this process is the one that moves traffic.
    """
    clock = SystemClock()
    with closing(Journal.open(folder / "journal", limit_bytes=settings.journal_limit_bytes)) as journal:
        async with (
            ServiceClient(settings.url("feature_service"), 1) as features_client,
            ServiceClient(settings.url("inference_service"), 1) as inference_client,
            ServiceClient(settings.url("feedback_service"), 1) as feedback_client,
            store.open_sql_store(settings.database_url(SERVICE), settings.database_timeout_s) as experiment_store,
            Publisher.from_settings(journal, settings),
        ):
            features = http_clients.HttpFeatures(features_client, settings.feature_timeout_s, settings.body_limit_bytes)
            inference = http_clients.HttpInference(
                inference_client, settings.inference_timeout_s, settings.body_limit_bytes
            )
            # It is not kept fresh: the worker changes allocations and states, which needs no versions.
            catalog = Catalog(inference, features, folder / "catalog.json", settings.refresh_s, settings.reread_s)
            experiments = handlers.Experiments(experiment_store, journal, catalog, clock)
            await until_available(experiments.refresh, _RETRY_S, slowest_s=_RETRY_S, name="read experiments")
            results = results_client.HttpResults(feedback_client, settings.results_timeout_s)
            yield (
                verdict_actions.VerdictActions(experiment_store, experiments),
                control.Controller(experiments, results, clock, is_in_charge, settings.results_age_limit_s),
            )


async def unready(state: Mapping[str, Any]) -> list[str]:
    """Why this router can't answer. While a fallback value answers for an experiment, the router is ready."""
    journal: Journal = state["journal"]
    experiments: handlers.Experiments = state["experiments"]
    reasons = journal.unready_reasons
    if not experiments.is_known:  # the champion would answer units that experiments may have given to others
        reasons.append("the database of experiments does not answer, and there is no copy of them on disk")
    if _is_inference_away(state) and not _fallbacks(state):
        reasons.append("the inference service does not answer, and no running experiment has a fallback value")
    return reasons


def remarks(state: Mapping[str, Any]) -> list[str]:
    """What an operator should know of a router that is ready."""
    journal: Journal = state["journal"]
    experiments: handlers.Experiments = state["experiments"]
    outages = []
    if experiments.is_known and experiments.is_stale:
        outages.append("the database of experiments does not answer: they go on as they were, and can't be changed")
    if _is_inference_away(state):
        names = ", ".join(_fallbacks(state))
        outages.append(f"the inference service does not answer; fallback values answer for experiments {names}")
    return [*outages, *journal.remarks]


def _is_inference_away(state: Mapping[str, Any]) -> bool:
    """Whether the inference service has not answered for a while; the catalog asks it every few seconds."""
    catalog: Catalog = state["catalog"]
    settings: RouterSettings = state["settings"]
    return catalog.silent_s > settings.unready_after_s


def _fallbacks(state: Mapping[str, Any]) -> list[str]:
    """The running experiments that have a fallback value."""
    experiments: handlers.Experiments = state["experiments"]
    return [
        experiment.name
        for experiment in experiments.all()
        if experiment.status in ("running", "decided") and experiment.fallback_value is not None
    ]


@asynccontextmanager
async def _first_assignments(settings: RouterSettings) -> AsyncIterator[StickyUnits]:
    connected = RedisAssignments.connect(
        settings.redis, cluster=settings.redis_cluster, ttl_s=settings.assignment_ttl_s
    )
    async with aclosing(connected), open_sticky_units(connected, settings) as sticky:
        yield sticky


def _forgetting(
    sticky: StickyUnits, experiments: handlers.Experiments, clock: Clock
) -> AbstractAsyncContextManager[None]:
    """Delete the units of experiments that have stopped, again and again."""

    async def forget() -> None:
        await sticky.forget(stopped_lately(experiments.all(), clock.now()))

    return run_every(forget, _FORGET_EVERY_S, name="delete units of stopped experiments")


def _kept_fresh(experiments: handlers.Experiments, every_s: float) -> AbstractAsyncContextManager[None]:
    """Read the changes of other routers, again and again."""
    return run_every(experiments.refresh, every_s, first_s=every_s, name="read experiments again")
