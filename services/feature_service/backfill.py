"""Fills rings with the past of a partition: for a new version of a view, and after a rebuild.

The stream goes on meanwhile and leaves those rings alone. When a filler has nearly caught up with the end of the
partition it holds the stream's merging for a moment, reads the rest, and hands the rings over. Offset marks in the
rings make both sides idempotent, so a filler that dies, or two at once after a rebalance, count nothing twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError

from contender.features import EventSource, FeatureView, TrainingSetError
from services.feature_service.definitions import DefinitionsSnapshot, history_of
from services.feature_service.domain import HISTORY, Ring
from services.feature_service.frames import decoded_frames
from services.feature_service.handlers import Merging
from services.feature_service.health import Health
from services.feature_service.history import HistoryChangedError, HistoryCutover, read_history
from services.feature_service.store import StoreUnavailableError
from shared.background import run_every
from shared.logs import logger
from shared.topic_reading import TopicReader, open_reader
from shared.topics import ENTITY_EVENTS

_BATCH = 200
_HANDOVER_LAG = 400
"""Records that a filler may lag behind when it holds the stream: a fraction of a second of work."""


@dataclass
class Backfill:
    """Keeps one filler running for each owned partition that has rings to fill.

    Args:
        kafka: bootstrap servers.
        merging: merges what is read; shares its lock with the stream.
        health: reports why something can't be filled.
        retry_s: seconds before a filler that failed starts again.
        history_retry_s: the same where a history file is at fault.
    """

    kafka: str
    merging: Merging
    health: Health
    retry_s: float = 1.0
    history_retry_s: float = 10.0
    _running: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self, every_s: float) -> AsyncIterator[None]:
        """Start missing fillers at intervals, and cancel all at the end: the next owner starts them again."""
        try:
            async with run_every(self.start_missing, every_s):
                yield
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def start_missing(self) -> None:
        """Start a filler for each owned partition that needs one, and stop those of partitions given up."""
        ownership = self.merging.ownership
        await self.merging.definitions.refresh()
        owned = set(ownership.owned)
        if 0 in owned:  # the owner of the first partition fills from history as well
            owned.add(HISTORY)
        else:
            ownership.forget([HISTORY])
        for partition, task in list(self._running.items()):
            if task.done() or partition not in owned:
                task.cancel()
                del self._running[partition]
        self.health.unfilled = {at: reason for at, reason in self.health.unfilled.items() if at in owned}
        for partition in owned - self._running.keys():
            async with self.merging.lock:
                await ownership.acquire(partition)
            if rings := self._unfed(partition):
                self._running[partition] = asyncio.create_task(self._fill(partition, rings))
            else:
                self.health.unfilled.pop(partition, None)

    def _unfed(self, partition: int) -> list[Ring]:
        rings = self.merging.definitions.current.rings.all()
        missing = [ring for ring in rings if not self.merging.ownership.feeds(ring, partition)]
        return [ring for ring in missing if ring.has_history] if partition == HISTORY else missing

    async def _fill(self, partition: int, rings: list[Ring]) -> None:
        log = logger(__name__).bind(partition=partition, rings=[ring.name for ring in rings])
        try:
            is_filled = await (
                self._from_history(rings) if partition == HISTORY else self._from_topic(partition, rings)
            )
            log.info("rings are filled" if is_filled else "the partition was given up, or the store was emptied")
            if is_filled:
                self.health.unfilled.pop(partition, None)
            else:
                await asyncio.sleep(self.retry_s)
        except (HistoryChangedError, TrainingSetError) as error:
            log.warning("rings can't be filled from history", error=str(error))
            self.health.unfilled[partition] = str(error)
            await asyncio.sleep(self.history_retry_s)
        except (KafkaError, OSError, StoreUnavailableError) as error:
            log.warning("a filler failed and starts again", error=repr(error))
            self.health.unfilled[partition] = repr(error)
            await asyncio.sleep(self.retry_s)

    async def _from_topic(self, partition: int, rings: list[Ring]) -> bool:
        ownership = self.merging.ownership
        token = ownership.token(partition)
        names = {ring.name for ring in rings}
        async with open_reader(self.kafka, ENTITY_EVENTS.name, [partition]) as reader:
            start = 0
            while (end := (await reader.ends())[partition]) - start > _HANDOVER_LAG:
                await self._merge(reader, partition, names, start, end)
                start = end
            async with self.merging.lock:
                end = (await reader.ends())[partition]
                await self._merge(reader, partition, names, start, end)
                is_first = ownership.feeds_nothing(partition)
                is_handed_over = await self._hand_over(partition, rings, token)
                if is_handed_over and is_first:
                    await ownership.record_filled(partition, end - 1, token)
                return is_handed_over

    async def _from_history(self, rings: list[Ring]) -> bool:
        """Merge the files of all sources up to their cutovers, and hand over the rings that each has filled.

        Raises:
            HistoryChangedError, TrainingSetError: the last such error; other files are merged all the same.
        """
        token = self.merging.ownership.token(HISTORY)
        current = self.merging.definitions.current
        failed: Exception | None = None
        for (name, sha256), group in sorted(_by_history(rings).items()):
            names = {ring.name for ring in group}
            try:
                frames = read_history(_source_of(current, group[0]), HistoryCutover(group[0].after_s, sha256))
                while frame := await asyncio.to_thread(next, frames, None):
                    merged = await self.merging.merge_into([frame], _only(names))
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
        return await self.merging.ownership.mark_filled(rings, partition, token)

    async def _merge(self, reader: TopicReader, partition: int, names: set[str], start: int, end: int) -> None:
        """Merge a partition's records from `start` to before `end` into the rings of these names."""
        async for records in reader.read({partition: start}, {partition: end}, _BATCH):
            await self.merging.merge_into(await decoded_frames(records), _only(names))


def _only(names: set[str]) -> Callable[[Ring, int], bool]:
    return lambda ring, _: ring.name in names


def _by_history(rings: Iterable[Ring]) -> dict[tuple[str, str], list[Ring]]:
    """Rings by their source and the digest of its history files."""
    groups: dict[tuple[str, str], list[Ring]] = {}
    for ring in rings:
        groups.setdefault((ring.source, ring.history), []).append(ring)
    return groups


def _source_of(current: DefinitionsSnapshot, ring: Ring) -> EventSource:
    """The source whose files hold a ring's history."""
    label = next(label for label in current.registered.cutovers if ring in current.rings.of_view(label))
    view = current.catalogue.kept[label]
    if not isinstance(view, FeatureView):
        raise TypeError(f"{label} is computed on demand, and has no history")
    return history_of(current.catalogue, view)
