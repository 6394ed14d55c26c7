"""The worker: reads topic entity-events, merges frames, and commits their offsets once they are on disk.

Three tasks, each taking what is waiting and never a timer: read, merge, settle. Frames keep their order in all of
them and are acknowledged in it. Whatever goes wrong ends the process: going on behind a frame that failed would move
the offset marks past it, and a restart reads it again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import faust
import msgspec
from faust.streams import Stream
from faust.types import EventT as FaustEvent
from faust.types import StreamT

from services.feature_service.handlers import Merging, Misfits, ReadFrame, decode_frame
from services.feature_service.metrics import EVENTS, LATE, MERGE_SECONDS, SETTLE_SECONDS
from services.feature_service.settings import FeatureSettings
from services.feature_service.store.protocol import FramePosition, StoreUnavailableError
from shared.logs import logger
from shared.streams import EndsProcess, Park, SourceRecord, create_faust, create_parker, source_of
from shared.topics import ENTITY_EVENTS

GROUP = "contender-feature-service"
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 5.0
T = TypeVar("T")


class Record(NamedTuple):
    """A record as it was read."""

    source: SourceRecord
    value: bytes

    @property
    def position(self) -> FramePosition:
        """Where the frame lies."""
        return FramePosition(self.source.frame_id, self.source.partition, self.source.offset)


def create_worker(
    settings: FeatureSettings, resources: Callable[[], AbstractAsyncContextManager[Merging]]
) -> faust.App:
    """The Faust application. `resources` opens what the merging needs."""
    app = create_faust(
        GROUP,
        kafka=settings.kafka,
        data=settings.folder("feature_service") / "worker",
        partitions=settings.partitions,
    )
    topic = app.topic(ENTITY_EVENTS.name, key_serializer="raw", value_serializer="raw")
    park = create_parker(app)

    @app.agent(topic)
    async def merge_entity_events(stream: StreamT[bytes]) -> None:
        async with resources() as merging, EndsProcess(app):
            await Pipeline.of(settings, merging, park).run(cast("Stream[bytes]", stream).noack().events())

    return app


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Reads, merges and settles records, each stage a bounded queue behind the one before."""

    merging: Merging
    park: Park
    batch: int
    patience_s: float
    read: "asyncio.Queue[Record]"
    merged: "asyncio.Queue[Record]"

    @classmethod
    def of(cls, settings: FeatureSettings, merging: Merging, park: Park) -> "Pipeline":
        """A pipeline with the limits of the settings."""
        return cls(
            merging,
            park,
            settings.batch_frames,
            settings.store_patience_s,
            asyncio.Queue(2 * settings.batch_frames),
            asyncio.Queue(settings.unacknowledged_frames),
        )

    async def run(self, events: AsyncIterator[FaustEvent[bytes]]) -> None:
        """Run until the stream ends or a stage fails for good."""
        async with asyncio.TaskGroup() as stages:
            background = [stages.create_task(self._merge()), stages.create_task(self._settle())]
            async for event in events:
                await self.read.put(Record(source_of(event), event.value or b""))
            for task in background:
                task.cancel()

    async def _merge(self) -> None:
        while True:
            records = await _take(self.read, self.batch)
            frames = [ReadFrame(record.position, await self._decoded(record)) for record in records]
            with MERGE_SECONDS.time():
                done = await self._patiently(lambda frames=frames: self.merging.merge(frames))  # type: ignore[misc]
            await self._set_aside(records, done.misfits)
            EVENTS.labels("merged").inc(done.events)
            EVENTS.labels("duplicate").inc(done.duplicate)
            LATE.inc(done.late)
            for record in records:
                await self.merged.put(record)

    async def _settle(self) -> None:
        while True:
            records = await _take(self.merged, self.merged.maxsize)
            positions = [record.position for record in records]
            with SETTLE_SECONDS.time():
                await self._patiently(lambda positions=positions: self.merging.settle(positions))  # type: ignore[misc]
            for record in records:
                record.source.ack()

    async def _decoded(self, record: Record) -> Sequence[Any]:
        try:
            return decode_frame(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            await self.park(record.source, record.value, str(error))
            return []

    async def _set_aside(self, records: Sequence[Record], misfits: Sequence[Misfits]) -> None:
        sources = {record.position: record.source for record in records}
        for misfit in misfits:
            EVENTS.labels("parked").inc(len(misfit.events.events))
            await self.park(sources[misfit.position], ENTITY_EVENTS.encode(misfit.events), misfit.reason)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again while the store is away, as long as patience lasts."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.patience_s
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                return await attempt()
            except StoreUnavailableError as error:
                if loop.time() + retry_s > until:
                    raise
                logger(__name__).warning("waits for the store", error=str(error), retry_s=retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)


async def _take(queue: "asyncio.Queue[T]", limit: int) -> list[T]:
    """Wait for one item, and take what else is there."""
    items = [await queue.get()]
    while len(items) < limit and not queue.empty():
        items.append(queue.get_nowait())
    return items
