"""The worker: acts on verdicts, and moves the traffic of canaries and bandits."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import faust

from services.ab_router.control import Controller
from services.ab_router.settings import RouterSettings
from services.ab_router.verdict_actions import VerdictActions
from services.ab_router.verdict_topic import follow_verdicts, owned_partitions
from shared.background import run_every
from shared.streams import create_faust

GROUP = "contender-router-worker"
_DECIDING_PARTITION = 0
"""The worker that owns it moves traffic: one at a time, but for the moments of a rebalance."""

_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 1.0

Resources = Callable[[Callable[[], bool]], AbstractAsyncContextManager[tuple[VerdictActions, Controller]]]
"""Opens the database, the journal and the client, given whether the process is the one that moves traffic."""


def create_worker(settings: RouterSettings, resources: Resources, data: Path) -> faust.App:
    """The Faust application.

    Args:
        settings: intervals, and where Kafka is.
        resources: opens what the worker uses; a failure is logged, and it is tried again.
        data: a folder of this process alone.
    """
    app = create_faust(GROUP, kafka=settings.kafka, data=data, partitions=settings.partitions)
    opened: asyncio.Future[VerdictActions] = asyncio.get_event_loop().create_future()
    follow_verdicts(app, opened)

    async def control() -> None:
        async with resources(lambda: _DECIDING_PARTITION in owned_partitions(app)) as (actions, controller):
            opened.set_result(actions)
            every_s = settings.control_interval_s
            async with run_every(controller.look, every_s, first_s=every_s, name="move traffic"):
                await app.wait_until_stopped()

    async def keep_control() -> None:
        opening = run_every(control, _FIRST_RETRY_S, slowest_s=_LAST_RETRY_S, name="open the worker's resources")
        async with opening:
            await app.wait_until_stopped()

    app.task(keep_control)
    return app
