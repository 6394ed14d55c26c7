"""Frames of events, as they are read from topic entity-events and from history files."""

import asyncio
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import msgspec
from aiokafka import ConsumerRecord

from shared.events import EntityEvent
from shared.streams import frame_id_in
from shared.topics import ENTITY_EVENTS, read_json


class FramePosition(NamedTuple):
    """A frame and where it lies in topic entity-events. `frame_id` is empty where its producer gave none."""

    frame_id: str
    partition: int
    offset: int


class ReadFrame(NamedTuple):
    """A frame as it was read from the topic. `sent_at` is its record's time in seconds."""

    position: FramePosition
    events: Sequence[EntityEvent]
    sent_at: float = inf


def decode_frame(value: bytes) -> list[EntityEvent]:
    """The events of a record: a frame, or one plain event.

    Raises:
        msgspec.DecodeError: the value is neither.
    """
    try:
        return ENTITY_EVENTS.decode(value).events
    except msgspec.ValidationError as no_frame:
        try:
            return [read_json(value, EntityEvent)]
        except msgspec.ValidationError as no_event:
            raise msgspec.ValidationError(f"neither a frame ({no_frame}) nor an event ({no_event})") from no_event


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
