"""Composition root of the router."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any, TypedDict

from fastapi import FastAPI

from services.ab_router import (
    api,
    errors,
    exploration,
    handlers,
    http_clients,
    plans,
    scoring,
    shadows,
    store,
    stores,
    traffic,
)
from services.ab_router.catalog import Catalog
from services.ab_router.settings import RouterSettings
from shared import http
from shared.background import run_every
from shared.clock import SystemClock
from shared.http_client import ServiceClient
from shared.journal import Journal
from shared.publisher import Publisher

_READINGS = 4
"""Connections for the catalog's own calls."""
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


Resources = Callable[[RouterSettings], AbstractAsyncContextManager[State]]


@asynccontextmanager
async def open_resources(settings: RouterSettings) -> AsyncIterator[State]:
    """Open the journal, its publisher, the store and the clients of the other services."""
    folder, clock = settings.folder("ab_router"), SystemClock()
    # A version that hangs must not hold another's; beside the answers it gets one micro-batch in shadow.
    connections = settings.version_limit * (settings.senders + 1) + _READINGS
    with closing(Journal.open(folder / "journal", limit_bytes=settings.journal_limit_bytes)) as journal:
        publisher = Publisher.from_settings(journal, settings)
        async with (
            ServiceClient(settings.url("feature_service"), connections) as features_client,
            ServiceClient(settings.url("inference_service"), connections) as inference_client,
            ServiceClient(settings.url("feedback_service"), _PLANS) as feedback_client,
            store.open_sql_store(settings.database_url("ab_router"), settings.database_timeout_s) as experiment_store,
            publisher,
            stores.RedisTraffic.connect(
                settings.redis, settings.traffic_timeout_s, cluster=settings.redis_cluster
            ) as traffic_store,
            traffic.Traffic(traffic_store, clock) as counted,
        ):
            features = http_clients.HttpFeatures(features_client, settings.feature_timeout_s, settings.body_limit_bytes)
            inference = http_clients.HttpInference(
                inference_client, settings.inference_timeout_s, settings.body_limit_bytes
            )
            path = folder / "catalog.json"
            async with Catalog(inference, features, path, settings.refresh_s, settings.reread_s) as catalog:
                experiments = handlers.Experiments(experiment_store, journal, catalog, clock)
                await experiments.refresh()
                await experiments.republish()
                scorer, shadow_scorer = (
                    scoring.Scorer(features, inference, catalog, settings, note_features=counted.note_features)
                    for _ in range(2)
                )
                predict = handlers.Predict(
                    catalog=catalog,
                    experiments=experiments,
                    scorer=scorer,
                    exploration=exploration.Exploration(),
                    shadows=shadows.Shadows(shadow_scorer, journal, clock, settings, note_latency=counted.note_shadow),
                    traffic=counted,
                    journal=journal,
                    clock=clock,
                    settings=settings,
                )
                readiness = handlers.Readiness(
                    counted,
                    catalog,
                    plans.HttpPlans(feedback_client, settings.plan_timeout_s),
                    settings.challenger_deadline_s,
                )
                adding = run_every(counted.flush, settings.traffic_flush_s, name="add counts of traffic")
                async with adding, predict, _kept_fresh(experiments, settings.refresh_s):
                    yield State(
                        settings=settings,
                        predict=predict,
                        experiments=experiments,
                        readiness=readiness,
                        catalog=catalog,
                        journal=journal,
                    )


def create_app(settings: RouterSettings, resources: Resources = open_resources) -> FastAPI:
    """The web application.

    Args:
        settings: read once at start.
        resources: opens what the requests need; tests give their own.
    """
    return http.create_app(
        service="ab_router",
        title="Contender router",
        lifespan=lambda _: resources(settings),
        routes=[api.routes],
        problems=errors.PROBLEMS,
        ready=unready,
        remarks=remarks,
    )


async def unready(state: Mapping[str, Any]) -> list[str]:
    """Why this router can't answer. While a fallback value answers for an experiment, the router is ready."""
    journal: Journal = state["journal"]
    reasons = journal.unready_reasons
    if _is_inference_away(state) and not _fallbacks(state):
        reasons.append("the inference service does not answer, and no running experiment has a fallback value")
    return reasons


def remarks(state: Mapping[str, Any]) -> list[str]:
    """What an operator should know of a router that is ready."""
    journal: Journal = state["journal"]
    if not _is_inference_away(state):
        return journal.remarks
    names = ", ".join(_fallbacks(state))
    return [f"the inference service does not answer; fallback values answer for experiments {names}", *journal.remarks]


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
        if experiment.status == "running" and experiment.fallback_value is not None
    ]


def _kept_fresh(experiments: handlers.Experiments, every_s: float) -> AbstractAsyncContextManager[None]:
    """Read the changes of other routers, again and again."""
    return run_every(experiments.refresh, every_s, first_s=every_s, name="read experiments again")
