"""Topic entity-events as a log that can be read again, whole or from an offset on."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from aiokafka.errors import KafkaError

from services.feature_service.frames import ReadFrame, decoded_frames
from shared.errors import Unavailable
from shared.topic_reading import Offsets, TopicReader, open_reader
from shared.topics import ENTITY_EVENTS


class EventLog(Protocol):
    """All frames of the topic, by partition and offset."""

    async def ends(self) -> dict[int, int]:
        """The offset of the next frame, by partition."""
        ...

    def read(self, start: Offsets, ends: Offsets) -> AsyncIterator[Sequence[ReadFrame]]:
        """The frames from `start` (by default from the first that the topic holds) to before `ends`."""
        ...


OpenLog = Callable[[], AbstractAsyncContextManager[EventLog]]
"""Opens a log; reading it raises Unavailable where the topic can't be read."""


@dataclass(frozen=True, slots=True)
class KafkaEventLog:
    """The log in Kafka."""

    reader: TopicReader

    async def ends(self) -> dict[int, int]:
        """The offset of the next frame, by partition."""
        return await self.reader.ends()

    async def read(self, start: Offsets, ends: Offsets) -> AsyncIterator[Sequence[ReadFrame]]:
        """The frames from `start` to before `ends`."""
        async for records in self.reader.read(start, ends):
            yield await decoded_frames(records)


def kafka_event_log(kafka: str, partitions: int) -> OpenLog:
    """Opens the log on bootstrap servers."""

    @asynccontextmanager
    async def open_log() -> AsyncIterator[KafkaEventLog]:
        try:
            async with open_reader(kafka, ENTITY_EVENTS.name, range(partitions)) as reader:
                yield KafkaEventLog(reader)
        except (KafkaError, TimeoutError) as error:
            raise Unavailable(f"the topic entity-events can't be read to its end: {error!r}") from error

    return open_log
