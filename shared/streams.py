"""Stream glue: one way to make a Faust application, to read typed events from it, and to set bad bytes aside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar

import faust
import msgspec
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from faust.exceptions import ProducerSendError
from faust.types import TP, StreamT
from faust.types import EventT as FaustEvent
from prometheus_client import Counter

from shared.errors import shortened
from shared.events import FRAME_ID_CHARACTERS
from shared.logs import logger
from shared.publisher import REFUSALS
from shared.topics import LARGEST_RECORD_BYTES, PARKED_NAME, Topic

EventT = TypeVar("EventT", bound=msgspec.Struct)
PARKED_BYTES = 64 * 1024
"""Bytes of a parked record that are kept: enough to see what it is."""

_ROOM_BYTES = 32 * 1024
"""For the key and the headers that a record has beside its value."""

_REASON_CHARACTERS = 500
_TYPE_BYTES = 100
_SET_ASIDE_BYTES = 1024**2
_TOPIC_REFUSALS = (InvalidTopicError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError)
PARKED = Counter("contender_parked_total", "Records that could not be read and were set aside", ["topic"])
SET_ASIDE = Counter("contender_set_aside_total", "Records that could not even be parked", ["topic"])


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """Where an event came from.

    `frame_id` is empty and `type_name` None for records that users' own producers sent without headers. `sent_at`, in
    seconds since the Unix epoch, is the record's own time; infinite where it has none.
    """

    topic: str
    partition: int
    offset: int
    frame_id: str
    ack: Callable[[], bool]
    type_name: str | None = None
    sent_at: float = inf


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
        producer_max_request_size=LARGEST_RECORD_BYTES + _ROOM_BYTES,
    )


@asynccontextmanager
async def crash_on_error(app: faust.App) -> AsyncIterator[None]:
    """Ends the application, and its process with it, when the block inside an agent raises.

    Faust alone would start the agent again behind the failed record, and the next commit would skip it.
    """
    try:
        yield
    except Exception as error:  # and not a cancellation, which is how it stops
        await app.crash(error)
        raise


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether the worker has joined its group, perhaps with no partitions.

    Faust says `started` before it has asked the group, and when Kafka goes away meanwhile it may wait for ever.
    """

    app: faust.App

    @property
    def complete(self) -> bool:
        """Whether the partitions are assigned and their tables recovered."""
        return self.app.started and self.app.tables.actives_ready

    async def wait_until_stuck(self, stall_timeout_s: float, look_s: float = 1.0) -> None:
        """Return when it has been incomplete for so long without progress."""
        known, idle_looks = self.progress(), 0
        while idle_looks * look_s < stall_timeout_s:
            await asyncio.sleep(look_s)
            progress = self.progress()
            idle_looks = 0 if self.complete or progress != known else idle_looks + 1
            known = progress

    def progress(self) -> dict[str, int]:
        """Counters by name, one of which moves while the worker makes progress."""
        tables: Any = self.app.tables  # Faust's interface lacks what its one manager of tables has
        return {
            "rebalances": self.app.rebalancing_count,
            "recovered": sum(offset or 0 for offset in tables.recovery.active_offsets.values()),
            "read": self.app.monitor.messages_received_total,
        }


async def start_at(consumer: Any, start: Mapping[TP, int], committed: Mapping[TP, int | None]) -> None:
    """Read partitions that were just assigned from given offsets on.

    Faust seeks the committed offsets once more after a rebalance, so this commits these offsets, too. Where 0 is
    committed, aiokafka leaves a partition at its position, which records that were fetched and dropped may have moved:
    hence the seek.

    Args:
        consumer: the application's; Faust's interface lacks what its one consumer has.
        start: by topic and partition the next offset to read.
        committed: their committed offsets.
    """
    # A further rebalance may have taken some. Faust drops those, and aiokafka takes an empty commit for an error.
    owned = consumer.assignment()
    changed = {at: offset for at, offset in start.items() if at in owned and offset != committed.get(at)}
    if changed:
        await consumer._commit(changed)  # noqa: SLF001
    if kept := {at: offset for at, offset in start.items() if at in owned}:
        await consumer.seek_wait(kept)


def create_parker(app: faust.App) -> Park:
    """A `Park` that sends to the topic `parked` through the application's own producer.

    It keeps the beginning of a long value; the header `length` has the full number of bytes. A record that Kafka
    refuses there is noted in the file `set-aside.jsonl` of the application's folder, and the stream goes on.
    """
    topic = app.topic(PARKED_NAME, key_serializer="raw", value_serializer="raw")
    refused = SetAside(Path(app.conf.datadir) / "set-aside.jsonl")

    async def park(source: SourceRecord, value: bytes, reason: str) -> None:
        reason = shortened(reason, _REASON_CHARACTERS)
        headers = {
            # A record that is read again after a crash is parked under the same id.
            "ce_id": f"{source.topic}-{source.partition}-{source.offset}".encode(),
            "topic": source.topic.encode(),
            "partition": str(source.partition).encode(),
            "offset": str(source.offset).encode(),
            "reason": reason.encode("utf-8", "replace"),
            "length": str(len(value)).encode(),
        }
        PARKED.labels(source.topic).inc()
        try:
            await (await topic.send(key=source.topic.encode(), value=value[:PARKED_BYTES], headers=headers))
        except (KafkaError, ProducerSendError) as error:
            cause = error.__cause__ if isinstance(error, ProducerSendError) else error
            if not isinstance(cause, (*REFUSALS, *_TOPIC_REFUSALS)):
                raise  # Kafka is away, and the record is read again
            refused.keep(source, reason, cause)

    return park


@dataclass(frozen=True, slots=True)
class SetAside:
    """Notes the coordinates of records that can't be parked, a line each; a full file keeps its newer half."""

    path: Path
    limit_bytes: int = _SET_ASIDE_BYTES

    def keep(self, source: SourceRecord, reason: str, error: BaseException) -> None:
        """Write the line, to the log as well."""
        SET_ASIDE.labels(source.topic).inc()
        coordinates = {"topic": source.topic, "partition": source.partition, "offset": source.offset, "reason": reason}
        coordinates["error"] = shortened(repr(error), _REASON_CHARACTERS)
        logger(__name__).error("a record can't be parked and is set aside", file=str(self.path), **coordinates)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > self.limit_bytes // 2:
                self.path.replace(self.path.with_suffix(".older.jsonl"))
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(coordinates) + b"\n")
        except OSError as failure:
            logger(__name__).error(
                "the record's coordinates can't be written to the file; only this log has them", error=repr(failure)
            )


async def decoded(
    stream: StreamT[bytes], topic: Topic[EventT], park: Park
) -> AsyncIterator[tuple[EventT, SourceRecord]]:
    """The stream's events with their coordinates. Records that can't be decoded are parked, and the stream goes on.

    A raised exception would kill the agent, so nothing that a producer can send may raise here.
    """
    async for event in stream.events():
        source = source_of(event)
        try:
            check_type(source, topic)
            decoded_event = topic.decode(event.value or b"")
        except msgspec.DecodeError as error:
            await park(source, event.value or b"", str(error))
            source.ack()
        else:
            yield decoded_event, source


def check_type(source: SourceRecord, topic: Topic[EventT]) -> None:
    """Check that a record has the topic's type, where its header `ce_type` names one.

    Raises:
        msgspec.DecodeError: it is of another type.
    """
    if source.type_name not in (None, topic.type_name):
        raise msgspec.DecodeError(f"ce_type is {source.type_name}, expected {topic.type_name} on topic {topic.name}")


def source_of(event: FaustEvent[bytes]) -> SourceRecord:
    """The coordinates of a Faust event."""
    message = event.message
    headers = message.headers or {}
    pairs = list(headers.items() if hasattr(headers, "items") else headers)
    header = _first(pairs, "ce_type")
    type_name = None if header is None else header[:_TYPE_BYTES].decode("ascii", "replace")
    sent_at = message.timestamp if message.timestamp > 0.0 else inf
    return SourceRecord(
        message.topic, message.partition, message.offset, frame_id_in(pairs), event.ack, type_name, sent_at
    )


def frame_id_in(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """The frame id that a record's headers name; empty where they name none, or one too long to be kept."""
    frame_id = _first(headers, "ce_id") or b""
    return frame_id.decode("ascii", "replace") if len(frame_id) <= FRAME_ID_CHARACTERS else ""


def _first(headers: Iterable[tuple[str, bytes | None]], wanted: str) -> bytes | None:
    return next((value for name, value in headers if name == wanted and value is not None), None)
