"""Topic entity-events as a log that can be read again, whole or from an offset on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import msgspec
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from services.feature_service.handlers import ReadFrame, decode_frame
from services.feature_service.store import FramePosition
from shared.errors import Unavailable
from shared.streams import frame_id_in
from shared.topic_reading import Offsets, TopicReader, open_reader
from shared.topics import ENTITY_EVENTS


class EventLog(Protocol):
    """All frames of the topic, by partition and offset."""

    async def ends(self) -> dict[int, int]:
        """By partition the offset that the next frame gets."""
        ...

    def read(self, start: Offsets, ends: Offsets) -> AsyncIterator[Sequence[ReadFrame]]:
        """The frames from `start` (by default from the first that the topic holds) to before `ends`."""
        ...


OpenLog = Callable[[], AbstractAsyncContextManager[EventLog]]
"""Opens a log; inside, Unavailable is raised where the topic can't be read."""


@dataclass(frozen=True, slots=True)
class KafkaEventLog:
    """The topic itself."""

    reader: TopicReader

    async def ends(self) -> dict[int, int]:
        """By partition the offset that the next frame gets."""
        return await self.reader.ends()

    async def read(self, start: Offsets, ends: Offsets) -> AsyncIterator[Sequence[ReadFrame]]:
        """The frames from `start` to before `ends`."""
        async for records in self.reader.read(start, ends):
            yield await decoded_frames(records)


def kafka_event_log(kafka: str, partitions: int) -> OpenLog:
    """Opens the log on bootstrap servers."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[KafkaEventLog]:
        try:
            async with open_reader(kafka, ENTITY_EVENTS.name, range(partitions)) as reader:
                yield KafkaEventLog(reader)
        except (KafkaError, TimeoutError) as error:
            raise Unavailable(f"the topic entity-events can't be read to its end: {error!r}") from error

    return opened


async def decoded_frames(records: Sequence[ConsumerRecord]) -> list[ReadFrame]:
    """Records of the topic as frames, decoded in a thread."""
    return await asyncio.to_thread(lambda: [_frame_of(record) for record in records])


def _frame_of(record: ConsumerRecord) -> ReadFrame:
    """A record as a frame; without events where it can't be decoded: the stream has parked it."""
    position = FramePosition(frame_id_in(record.headers), record.partition, record.offset)
    try:
        return ReadFrame(position, decode_frame(record.value or b""), record.timestamp / 1000)
    except msgspec.DecodeError:
        return ReadFrame(position, [])
