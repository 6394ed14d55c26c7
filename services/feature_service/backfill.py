"""Fills rings with what a partition had before: for a new version of a view, and after a rebuild.

The stream goes on meanwhile and leaves those rings alone. When a filler has nearly caught up with the end of the
partition it holds the stream's merging for a moment, reads the rest, and hands the rings over. Offset marks in the
rings make both sides idempotent, so a filler that dies, or two at once after a rebalance, count nothing twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from contender.features.definitions import EventSource, FeatureView
from contender.features.errors import TrainingSetError
from services.feature_service.definitions import DefinitionsSnapshot, history_of
from services.feature_service.domain.rings import HISTORY, Ring
from services.feature_service.handlers import Merging, ReadFrame, decode_frame
from services.feature_service.health import Health
from services.feature_service.history import HistoryChangedError, HistoryCutover, frames
from services.feature_service.store.protocol import FramePosition, StoreUnavailableError
from shared.background import run_every
from shared.logs import logger
from shared.streams import frame_id_in
from shared.topics import ENTITY_EVENTS

_READ_MS = 500
_BATCH = 200
_NEARLY = 400
"""Records behind the end of a partition from which on the stream is held: a fraction of a second of work."""

_REQUEST_MS = 10_000
_RETRY_S = 1.0
_HISTORY_RETRY_S = 10.0


@dataclass
class Fillers:
    """Keeps one filler running for each owned partition that has rings to fill.

    Args:
        kafka: bootstrap servers.
        merging: merges what is read; shares its lock with the stream.
        health: is told why something can't be filled.
    """

    kafka: str
    merging: Merging
    health: Health
    _running: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self, every_s: float) -> AsyncIterator[None]:
        """Look every so often for what is to be filled; at the end what is unfinished is begun again elsewhere."""
        try:
            async with run_every(self.tend, every_s):
                yield
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def tend(self) -> None:
        """Start what is to be filled; called now and then."""
        await self.merging.definitions.refresh()
        owned = set(self.merging.feeds.owned)
        if 0 in owned:  # the owner of the first partition takes history as well
            owned.add(HISTORY)
        else:
            self.merging.feeds.forget([HISTORY])
        for partition, task in list(self._running.items()):
            if task.done() or partition not in owned:
                task.cancel()
                del self._running[partition]
        self.health.unfilled = {one: why for one, why in self.health.unfilled.items() if one in owned}
        for partition in owned - self._running.keys():
            async with self.merging.lock:
                await self.merging.feeds.acquire(partition)
            if rings := self._unfed(partition):
                self._running[partition] = asyncio.create_task(self._fill(partition, rings))
            else:
                self.health.unfilled.pop(partition, None)

    def _unfed(self, partition: int) -> list[Ring]:
        rings = self.merging.definitions.current.rings.all()
        missing = [ring for ring in rings if not self.merging.feeds.feeds(ring, partition)]
        return [ring for ring in missing if ring.has_history] if partition == HISTORY else missing

    async def _fill(self, partition: int, rings: list[Ring]) -> None:
        log = logger(__name__).bind(partition=partition, rings=[ring.name for ring in rings])
        try:
            live = await (self._from_history(rings) if partition == HISTORY else self._from_topic(partition, rings))
            log.info("rings are fed by the stream" if live else "the partition was given up, or the store lost it")
            if live:
                self.health.unfilled.pop(partition, None)
            else:
                await asyncio.sleep(_RETRY_S)
        except (HistoryChangedError, TrainingSetError) as error:
            log.warning("a history is not filled", error=str(error))
            self.health.unfilled[partition] = str(error)
            await asyncio.sleep(_HISTORY_RETRY_S)
        except (KafkaError, OSError, StoreUnavailableError) as error:
            log.warning("filling begins again", error=repr(error))
            self.health.unfilled[partition] = repr(error)
            await asyncio.sleep(_RETRY_S)

    async def _from_topic(self, partition: int, rings: list[Ring]) -> bool:
        token = self.merging.feeds.token(partition)
        async with AIOKafkaConsumer(
            bootstrap_servers=self.kafka, enable_auto_commit=False, request_timeout_ms=_REQUEST_MS
        ) as consumer:
            source = TopicPartition(ENTITY_EVENTS.name, partition)
            consumer.assign([source])
            await consumer.seek_to_beginning(source)
            await self._until(consumer, source, rings, _NEARLY)
            async with self.merging.lock:
                end = await self._until(consumer, source, rings, 0)
                is_first = self.merging.feeds.feeds_nothing(partition)
                live = await self._hand_over(partition, rings, token)
                if live and is_first:
                    await self.merging.feeds.settle_filled(partition, end - 1, token)
                return live

    async def _from_history(self, rings: list[Ring]) -> bool:
        """Merge the files of all sources up to the seams of their views' versions, and hand over what each has filled.

        Raises:
            HistoryChangedError, TrainingSetError: the last that was met; other files are merged all the same.
        """
        token = self.merging.feeds.token(HISTORY)
        current = self.merging.definitions.current
        failed: Exception | None = None
        for (name, sha256), group in sorted(_by_history(rings).items()):
            wanted = {ring.name for ring in group}
            try:
                reading = frames(_source_of(current, group[0]), HistoryCutover(group[0].after_s, sha256))
                while part := await asyncio.to_thread(next, reading, None):
                    number, events = part
                    frame = ReadFrame(FramePosition("", HISTORY, number), events)
                    merged = await self.merging.merge_into([frame], _only(wanted))
                    if merged.misfits:
                        raise TrainingSetError(f"history of source {name!r}: {merged.misfits[0].reason}")  # noqa: TRY301
            except (HistoryChangedError, TrainingSetError) as error:
                failed = error
                continue
            if not await self._hand_over(HISTORY, group, token):
                return False
        if failed is not None:
            raise failed
        return True

    async def _hand_over(self, partition: int, rings: list[Ring], token: str) -> bool:
        await self.merging.store.persist()
        return await self.merging.feeds.mark_filled(rings, partition, token)

    async def _until(self, consumer: AIOKafkaConsumer, source: TopicPartition, rings: list[Ring], behind: int) -> int:
        """Merge until no more than `behind` records are left; of those that were there, where none may be left.

        Returns:
            The end of the partition.
        """
        names = {ring.name for ring in rings}
        end: int = (await consumer.end_offsets([source]))[source]
        while True:
            if behind:
                end = (await consumer.end_offsets([source]))[source]
            position = await consumer.position(source)
            if end - position <= behind:
                return end
            read = await consumer.getmany(source, timeout_ms=_READ_MS, max_records=min(_BATCH, end - position))
            frames = [frame_of(record) for record in read.get(source, [])]
            if frames:
                await self.merging.merge_into(frames, _only(names))


def _only(names: set[str]) -> Callable[[Ring, int], bool]:
    return lambda ring, _: ring.name in names


def _by_history(rings: Iterable[Ring]) -> dict[tuple[str, str], list[Ring]]:
    """Rings by their source and the files that its history lies in."""
    found: dict[tuple[str, str], list[Ring]] = {}
    for ring in rings:
        found.setdefault((ring.source, ring.history), []).append(ring)
    return found


def _source_of(current: DefinitionsSnapshot, ring: Ring) -> EventSource:
    """The source that a ring's history is read by."""
    label = next(label for label in current.registered.seams if ring in current.rings.of_view(label))
    view = current.catalogue.kept[label]
    if not isinstance(view, FeatureView):
        raise TypeError(f"{label} is computed on demand, and has no history")
    return history_of(current.catalogue, view)


def frame_of(record: ConsumerRecord) -> ReadFrame:
    """A record of the topic as a frame; one that is none holds no events, and the stream has parked it."""
    position = FramePosition(frame_id_in(record.headers), record.partition, record.offset)
    try:
        return ReadFrame(position, decode_frame(record.value or b""), record.timestamp / 1000)
    except msgspec.DecodeError:
        return ReadFrame(position, [])
