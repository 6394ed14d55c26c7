"""The worker: reads topic entity-events, merges frames, and commits their offsets once they are on disk.

Three tasks read, merge and settle; none waits for a timer, and all keep the order of frames. Any failure ends the
process: going on after a frame that failed would move the offset marks past it; a restart reads it again.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import faust
import msgspec
from faust.streams import Stream
from faust.types import EventT as FaustEvent
from faust.types import StreamT

from contender.features import seconds
from services.feature_service.backfill import Backfill
from services.feature_service.frames import FramePosition, ReadFrame, decode_frame
from services.feature_service.handlers import MergeResult, Merging, Misfits
from services.feature_service.health import Health
from services.feature_service.metrics import EVENTS, MERGE_SECONDS, SETTLE_SECONDS
from services.feature_service.settings import FeatureSettings
from services.feature_service.store import StoreUnavailableError
from shared.background import run_every
from shared.logs import logger
from shared.streams import (
    Park,
    SourceRecord,
    check_type,
    crash_on_error,
    create_faust,
    create_parker,
    source_of,
    start_at,
)
from shared.topics import ENTITY_EVENTS

GROUP = "contender-feature-service"
_FIRST_RETRY_S = 0.1
_REPORT_S = 2.0
_LAST_RETRY_S = 5.0
T = TypeVar("T")


class Record(NamedTuple):
    """A record of the topic."""

    source: SourceRecord
    value: bytes
    sent_at: float

    @property
    def position(self) -> FramePosition:
        """Where the frame lies."""
        return FramePosition(self.source.frame_id, self.source.partition, self.source.offset)


def create_worker(
    settings: FeatureSettings, resources: Callable[[], AbstractAsyncContextManager[Merging]], health: Health
) -> faust.App:
    """The Faust application.

    Args:
        settings: limits, and where Kafka is.
        resources: opens what the merging needs.
        health: records how fresh the worker's views are.
    """
    app = create_faust(
        GROUP,
        kafka=settings.kafka,
        data=settings.folder("feature_service") / "worker",
        partitions=settings.partitions,
    )
    topic = app.topic(ENTITY_EVENTS.name, key_serializer="raw", value_serializer="raw")
    park = create_parker(app)

    opened: asyncio.Future[Merging] = asyncio.get_event_loop().create_future()

    async def on_rebalanced(*_: object, **__: object) -> None:
        async with asyncio.timeout(settings.store_retry_budget_s):
            merging = await asyncio.shield(opened)
        await _start(app.consumer, merging)

    app.on_rebalance_complete.connect(on_rebalanced)

    @app.agent(topic)
    async def merge_entity_events(stream: StreamT[bytes]) -> None:
        async with resources() as merging, crash_on_error(app):
            opened.set_result(merging)

            async def on_revoked(*arguments: Any, **_: object) -> None:
                merging.ownership.forget(revoked.partition for revoked in arguments[-1])  # the sender may come first

            app.on_partitions_revoked.connect(on_revoked)
            backfill = Backfill(settings.kafka, merging, health)
            pipeline = Pipeline.of(settings, merging, park, health)
            async with backfill.running(settings.refresh_s), run_every(pipeline.report_health, _REPORT_S):
                await pipeline.run(cast("Stream[bytes]", stream).noack().events())

    return app


async def _start(consumer: Any, merging: Merging) -> None:
    """Start each partition after the offsets that the store has merged, and never after the committed one.

    Faust reads the source topics while a group forms, drops what it has read, and does not always go back.
    """
    assigned = [partition for partition in consumer.assignment() if partition.topic == ENTITY_EVENTS.name]
    merging.ownership.assign(at.partition for at in assigned)
    if not assigned:
        return
    earliest = await consumer.earliest_offsets(*assigned)
    committed = await consumer.seek_to_committed()
    applied = await merging.store.applied([at.partition for at in assigned])
    start = {}
    for at, offset in zip(assigned, applied, strict=True):
        known = committed.get(at)
        merged = earliest[at] if offset is None else offset + 1
        wanted = merged if known is None else known if offset is None else min(known, merged)
        start[at] = max(wanted, earliest[at])
        if known:
            merging.ownership.note_done(at.partition, known - 1)
    await start_at(consumer, start, committed)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Reads, merges and settles records; a bounded queue leads from each stage to the next."""

    merging: Merging
    park: Park
    batch: int
    retry_budget_s: float
    read: "asyncio.Queue[Record]"
    merged: "asyncio.Queue[tuple[Record, str]]"
    health: Health
    worker: str = field(default_factory=partial(secrets.token_hex, 8))

    @classmethod
    def of(cls, settings: FeatureSettings, merging: Merging, park: Park, health: Health) -> "Pipeline":
        """A pipeline with the limits of the settings."""
        return cls(
            merging,
            park,
            settings.batch_frames,
            settings.store_retry_budget_s,
            asyncio.Queue(2 * settings.batch_frames),
            asyncio.Queue(settings.unacknowledged_frames),
            health,
        )

    async def run(self, events: AsyncIterator[FaustEvent[bytes]]) -> None:
        """Run until the stream ends or a stage fails for good."""
        async with asyncio.TaskGroup() as stages:
            background = [stages.create_task(self._merge()), stages.create_task(self._settle())]
            async for event in events:
                record = Record(source_of(event), event.value or b"", event.message.timestamp)
                self.health.note_read(record.sent_at, self.merging.clock.now())
                await self.read.put(record)
            for task in background:
                task.cancel()

    async def _merge(self) -> None:
        while True:
            records = await _take(self.read, self.batch)
            frames = [ReadFrame(record.position, await self._decoded(record), record.sent_at) for record in records]
            with MERGE_SECONDS.time():
                done = await self._retried(lambda frames=frames: self.merging.merge(frames))  # type: ignore[misc]
            await self._park_misfits(records, done.misfits)
            EVENTS.labels("merged").inc(done.events)
            EVENTS.labels("duplicate").inc(done.duplicate)
            self._note(records, done)
            self.health.note_done(len(records))
            for record in records:
                await self.merged.put((record, done.tokens.get(record.source.partition, "")))

    def _note(self, records: Sequence[Record], done: MergeResult) -> None:
        catalogue, now = self.merging.definitions.current.catalogue, self.merging.clock.now()
        sent_at = [record.sent_at for record in records]
        for source, (newest, events) in done.newest.items():
            views = {
                view.name: seconds(view.fresh_within) for view in catalogue.views.values() if view.source.name == source
            }
            self.health.note_merged(views, now=now, sent_at=sent_at, newest_event_s=newest, events=events)
        for view, events in done.late.items():
            self.health.note_late(view, events)

    async def report_health(self) -> None:
        """Write this worker's health to the store, for the status of the web process."""
        report = self.health.report(self.merging.clock.now())
        await self.merging.store.write_health(self.worker, msgspec.json.encode(report), report.at)

    async def _settle(self) -> None:
        while True:
            records = await _take(self.merged, self.merged.maxsize)
            positions = [(record.position, token) for record, token in records]
            with SETTLE_SECONDS.time():
                await self._retried(lambda positions=positions: self.merging.settle(positions))  # type: ignore[misc]
            for record, _ in records:
                record.source.ack()

    async def _decoded(self, record: Record) -> Sequence[Any]:
        try:
            check_type(record.source, ENTITY_EVENTS)
            return decode_frame(record.value)
        except msgspec.DecodeError as error:
            self.health.note_parked(1)
            await self.park(record.source, record.value, str(error))
            return []

    async def _park_misfits(self, records: Sequence[Record], misfits: Sequence[Misfits]) -> None:
        sources = {record.position: record.source for record in records}
        for misfit in misfits:
            self.health.note_parked(len(misfit.events.events))
            await self.park(sources[misfit.position], ENTITY_EVENTS.encode(misfit.events), misfit.reason)

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Retry while the store is unavailable, within the retry budget."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.retry_budget_s
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                return await attempt()
            except StoreUnavailableError as error:
                if loop.time() + retry_s > until:
                    raise
                logger(__name__).warning("the worker waits for the store", error=str(error), retry_s=retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)


async def _take(queue: "asyncio.Queue[T]", limit: int) -> list[T]:
    """Wait for one item, and take the others that are queued."""
    items = [await queue.get()]
    while len(items) < limit and not queue.empty():
        items.append(queue.get_nowait())
    return items
