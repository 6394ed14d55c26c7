"""Topic entity-events as a log that can be read again: from its beginning, or on from where one has stopped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.feature_service.backfill import frame_of
from services.feature_service.handlers import ReadFrame
from shared.topics import ENTITY_EVENTS

_READ_MS = 500
_PROGRESS_S = 30.0
"""How long to wait for records that are known to be there."""

Offsets = Mapping[int, int]
"""An offset by partition."""


class EventLog(Protocol):
    """All frames there are, by partition and offset."""

    async def ends(self) -> dict[int, int]:
        """Per partition the offset that the next frame gets."""
        ...

    def read(self, start: Offsets, ends: Offsets) -> AsyncIterator[Sequence[ReadFrame]]:
        """The frames from `start` (where it names no partition: from the first one held) to before `ends`.

        Raises:
            TimeoutError: frames that are there do not come.
        """
        ...


OpenLog = Callable[[], AbstractAsyncContextManager[EventLog]]


@dataclass(frozen=True, slots=True)
class KafkaEventLog:
    """The topic itself. Raises KafkaError where it can't be reached."""

    consumer: AIOKafkaConsumer
    places: Sequence[TopicPartition]

    async def ends(self) -> dict[int, int]:
        """Per partition the offset that the next frame gets."""
        return {place.partition: end for place, end in (await self.consumer.end_offsets(self.places)).items()}

    async def read(self, start: Offsets, ends: Offsets) -> AsyncIterator[Sequence[ReadFrame]]:
        """The frames from `start` to before `ends`."""
        held = await self.consumer.beginning_offsets(self.places)
        behind = []
        for place in self.places:
            begin = max(held[place], start.get(place.partition, 0))
            if begin < ends[place.partition]:
                self.consumer.seek(place, begin)
                behind.append(place)
        while behind:
            async with asyncio.timeout(_PROGRESS_S):
                records = await self._some(behind)
            wanted = [record for record in records if record.offset < ends[record.partition]]
            yield await asyncio.to_thread(lambda wanted=wanted: [frame_of(record) for record in wanted])  # type: ignore[misc]
            behind = [place for place in behind if await self.consumer.position(place) < ends[place.partition]]

    async def _some(self, places: Sequence[TopicPartition]) -> list[ConsumerRecord]:
        while True:
            found = await self.consumer.getmany(*places, timeout_ms=_READ_MS)
            if records := [record for several in found.values() for record in several]:
                return records


def kafka_event_log(kafka: str, partitions: int) -> OpenLog:
    """Opens the log on bootstrap servers."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[KafkaEventLog]:
        async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
            places = [TopicPartition(ENTITY_EVENTS.name, number) for number in range(partitions)]
            consumer.assign(places)
            yield KafkaEventLog(consumer, places)

    return opened
