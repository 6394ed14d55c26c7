"""The composition root: the only module that knows all others."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypedDict

from fastapi import FastAPI

from services.feedback_service import api, errors, experiments, pages, verdict_store, worker
from services.feedback_service.handlers import ReadResults, SubmitFeedback
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import RedisSnapshots, SnapshotStore
from shared import clock, http, processes, topic_admin, worker_process
from shared.journal import Journal
from shared.publisher import Publisher

SERVICE: Final = "feedback_service"
_WORKER_DATABASE_S = 10.0
"""Longest a question of the worker to the database may take: nobody waits for its answer."""


class State(TypedDict):
    """What requests use."""

    settings: FeedbackSettings
    submit_feedback: SubmitFeedback
    read_results: ReadResults
    snapshots: SnapshotStore
    journal: Journal


Resources = Callable[[FeedbackSettings], AbstractAsyncContextManager[State]]


@asynccontextmanager
async def open_resources(settings: FeedbackSettings) -> AsyncIterator[State]:
    """Open the journal, its publisher, Redis, the database of verdicts and the view of the experiments."""
    journal = Journal.open(settings.folder(SERVICE) / "journal", limit_bytes=settings.journal_limit_bytes)
    publisher = Publisher.from_settings(journal, settings)
    snapshots = _snapshots(settings)
    try:
        async with (
            verdict_store.open_sql_store(settings.database_url(SERVICE)) as verdicts,
            publisher,
            experiments.ExperimentsFromKafka(settings.kafka) as announced,
        ):
            yield State(
                settings=settings,
                submit_feedback=SubmitFeedback(
                    journal, clock.SystemClock(), settings.partitions, settings.feedback_rows_limit
                ),
                read_results=ReadResults(snapshots, announced, clock.SystemClock(), verdicts),
                snapshots=snapshots,
                journal=journal,
            )
    finally:
        await snapshots.close()
        journal.close()


def create_app(settings: FeedbackSettings, resources: Resources = open_resources) -> FastAPI:
    """The web application.

    Args:
        settings: read once at start.
        resources: opens what requests use; tests pass their own.
    """
    app = http.create_app(
        service=SERVICE,
        title="Contender feedback",
        lifespan=lambda _: resources(settings),
        routes=[api.routes],
        problems=errors.PROBLEMS,
        ready=unready,
        remarks=remarks,
    )
    app.include_router(pages.pages)
    return app


def serve_web(settings: FeedbackSettings) -> None:
    """Serve the API and the pages."""
    processes.run_web(create_app(settings), settings, SERVICE)


def serve_worker(settings: FeedbackSettings) -> None:
    """Run the join until SIGTERM."""
    asyncio.run(
        topic_admin.ensure_topics(
            settings.kafka,
            partitions=settings.partitions,
            replication=settings.replication,
            retention=settings.retention,
            changelogs=[worker.changelog_of(settings.feedback_state)],
        )
    )
    snapshots = _snapshots(settings)
    # Workers on one machine differ in their port, and each finds its own folder again.
    folder = settings.folder(SERVICE) / f"worker-{settings.worker_port(SERVICE)}"

    async def ready() -> list[str]:
        return await store_faults(snapshots)

    def open_verdicts() -> AbstractAsyncContextManager[verdict_store.VerdictStore]:
        return verdict_store.open_sql_store(settings.database_url(SERVICE), _WORKER_DATABASE_S)

    worker_process.run_worker(
        lambda: worker.create_worker(settings, snapshots, clock.SystemClock(), folder, open_verdicts),
        settings,
        SERVICE,
        ready=ready,
    )


async def unready(state: Mapping[str, Any]) -> list[str]:
    """Why the web process can't do its job; empty if it can."""
    journal: Journal = state["journal"]
    return [*await store_faults(state["snapshots"]), *journal.unready_reasons]


def remarks(state: Mapping[str, Any]) -> list[str]:
    """What an operator should know of a web process that is ready."""
    journal: Journal = state["journal"]
    return journal.remarks


async def store_faults(snapshots: SnapshotStore) -> list[str]:
    """Why snapshots can't be read or written; empty if they can."""
    try:
        await snapshots.ping()
    except errors.ResultsUnavailable as error:
        return [error.detail]
    return []


def _snapshots(settings: FeedbackSettings) -> RedisSnapshots:
    return RedisSnapshots.connect(settings.redis, partitions=settings.partitions, state=settings.feedback_state)
