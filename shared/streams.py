"""Stream glue: one way to make a Faust application, to read typed events from it, and to set bad bytes aside."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import faust
import msgspec
from faust.types import EventT as FaustEvent
from faust.types import StreamT
from prometheus_client import Counter

from shared.topics import PARKED_NAME, Topic

EventT = TypeVar("EventT", bound=msgspec.Struct)
PARKED = Counter("contender_parked_total", "Records that could not be read and were set aside", ["topic"])


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """Where an event came from. `frame_id` is empty for records that users' own producers sent without headers."""

    topic: str
    partition: int
    offset: int
    frame_id: str
    ack: Callable[[], bool]


class Park(Protocol):
    """Sets a record aside with a reason."""

    async def __call__(self, source: SourceRecord, value: bytes, reason: str) -> None:
        """Return once the record is kept."""
        ...


def create_faust(name: str, *, kafka: str, data: Path, partitions: int, store: str = "memory://") -> faust.App:
    """A Faust application with at-least-once delivery; exactness comes from stored offsets.

    Args:
        name: the consumer group.
        kafka: bootstrap servers, comma-separated.
        data: folder of this worker process alone.
        partitions: partitions of the changelogs; those of the topics that are read.
        store: where tables live: `memory://`, or `rocksdb://` for state larger than memory.
    """
    return faust.App(
        name,
        broker=[f"kafka://{address}" for address in kafka.split(",")],
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        broker_max_poll_interval=120,
        consumer_auto_offset_reset="earliest",
        datadir=str(data),
        store=store,
        table_standby_replicas=0,
        topic_partitions=partitions,
        topic_disable_leader=True,
        web_enabled=False,
        processing_guarantee="at_least_once",
        stream_wait_empty=False,
    )


@dataclass(frozen=True, slots=True)
class EndsProcess:
    """Whatever fails inside an agent ends the application, and its process with it.

    Faust alone would start the agent again behind the failed record, whose offset the next commit would pass.
    """

    app: faust.App

    async def __aenter__(self) -> None:
        return

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):  # and not a cancellation, which is how it stops
            await self.app.crash(error)


def create_parker(app: faust.App) -> Park:
    """A `Park` that sends to the topic `parked` through the application's own producer."""
    topic = app.topic(PARKED_NAME, key_serializer="raw", value_serializer="raw")

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        headers = {
            # A record that is read again after a crash is parked under the same id.
            "ce_id": f"{source.topic}-{source.partition}-{source.offset}".encode(),
            "topic": source.topic.encode(),
            "partition": str(source.partition).encode(),
            "offset": str(source.offset).encode(),
            "reason": reason.encode(),
        }
        PARKED.labels(source.topic).inc()
        await (await topic.send(key=source.topic.encode(), value=value, headers=headers))

    return park


async def decoded(
    stream: StreamT[bytes], topic: Topic[EventT], park: Park
) -> AsyncIterator[tuple[EventT, SourceRecord]]:
    """The stream's events with their coordinates. Bytes that are no such event are parked, and the stream goes on.

    A raised exception would kill the agent, so nothing that a producer can send may raise here.
    """
    async for event in stream.events():
        source = source_of(event)
        try:
            decoded_event = topic.decode(event.value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            await park(source, event.value or b"", str(error))
            source.ack()
        else:
            yield decoded_event, source


def source_of(event: FaustEvent[bytes]) -> SourceRecord:
    """The coordinates of a Faust event."""
    message = event.message
    headers = message.headers or {}
    pairs = headers.items() if hasattr(headers, "items") else headers
    frame_id = next((value.decode("ascii", "replace") for name, value in pairs if name == "ce_id"), "")
    return SourceRecord(message.topic, message.partition, message.offset, frame_id, event.ack)
