"""`python -m services.feedback_service web|worker|all`."""

import asyncio
import sys

import faust

from services.feedback_service.main import create_app, store_faults
from services.feedback_service.settings import FeedbackSettings
from services.feedback_service.store import RedisSnapshots
from services.feedback_service.worker import changelog_of, create_worker
from shared.clock import SystemClock
from shared.logs import configure_logs
from shared.processes import run_role, run_web, run_worker
from shared.settings import ServiceName
from shared.topic_admin import ensure_topics

SERVICE: ServiceName = "feedback_service"


def web(settings: FeedbackSettings) -> None:
    """Serve the API and the pages."""
    run_web(create_app(settings), settings, SERVICE)


def worker(settings: FeedbackSettings) -> None:
    """Run the join until SIGTERM."""
    changelogs = [changelog_of(settings.feedback_state)]
    asyncio.run(
        ensure_topics(
            settings.kafka,
            partitions=settings.partitions,
            replication=settings.replication,
            retention=settings.retention,
            changelogs=changelogs,
        )
    )
    snapshots = RedisSnapshots.connect(settings.redis, partitions=settings.partitions, state=settings.feedback_state)
    port = settings.worker_port(SERVICE)
    # Workers on one machine differ in their port, and each finds its own folder again.
    folder = settings.folder(SERVICE) / f"worker-{port}"

    def create() -> faust.App:
        return create_worker(settings, snapshots, SystemClock(), folder)

    async def unready() -> list[str]:
        return await store_faults(snapshots)

    run_worker(create, settings, SERVICE, ready=unready)


if __name__ == "__main__":
    loaded = FeedbackSettings.load()
    configure_logs(service=SERVICE, log_format=loaded.log_format, level=loaded.log_level)
    run_role(SERVICE, loaded, {"web": web, "worker": worker}, sys.argv[1:])
