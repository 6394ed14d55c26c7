"""The catalogue of topics: the one event type each carries and who writes it, and how rows become records of them."""

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from math import ceil
from typing import Generic, NamedTuple, TypeVar

import msgspec

from contender.contracts import topics as names
from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import VerdictEvent
from shared.events import EntityEventFrame, FeedbackFrame, PredictionFrame
from shared.json_bounds import has_too_many_parts

LARGEST_RECORD_BYTES = 8 * 1024**2 - 64 * 1024
"""The largest value of a record: the brokers' message.max.bytes, 8 MiB here, less room for keys and headers."""

FRAME_BYTES = 1024**2
"""About how large a frame becomes: what Kafka takes by its own defaults, and a fraction of LARGEST_RECORD_BYTES."""

EventT = TypeVar("EventT", bound=msgspec.Struct)
ShapeT = TypeVar("ShapeT")
RowT = TypeVar("RowT")
EncodedT = TypeVar("EncodedT", bound=Sized)
_END_CHARACTERS = 200
_MOST_PARTS = 500_000
"""Arrays and objects of a record: 200,000 rows of three classes fit into one, and 8 MB of `[],` would take 180 MB."""


@dataclass(frozen=True, slots=True)
class Topic(Generic[EventT]):
    """A topic with one event type. `type_name` is the CloudEvents type of its records."""

    name: str
    event: type[EventT]
    type_name: str
    writer: str
    compacted: bool = False

    def encode(self, event: EventT) -> bytes:
        """The record's value: JSON."""
        return msgspec.json.encode(event)

    def decode(self, value: bytes) -> EventT:
        """Read a record's value.

        Raises:
            msgspec.DecodeError: the bytes are not JSON, or JSON of another shape.
        """
        return read_json(value, self.event)


def read_json(value: bytes, shape: type[ShapeT]) -> ShapeT:
    """Read JSON of a record, whoever has sent it.

    Raises:
        msgspec.DecodeError: the bytes are not JSON, or JSON of another shape, too deep or of too many parts.
    """
    if has_too_many_parts(value, _MOST_PARTS):
        raise msgspec.DecodeError(f"there are more than {_MOST_PARTS} arrays and objects")
    try:
        return msgspec.json.decode(value, type=shape)
    except msgspec.ValidationError as error:  # its text quotes the whole value before it names the field
        raise msgspec.ValidationError(_shortened(str(error))) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def _shortened(message: str) -> str:
    return (
        message if len(message) <= 2 * _END_CHARACTERS else f"{message[:_END_CHARACTERS]}…{message[-_END_CHARACTERS:]}"
    )


ENTITY_EVENTS = Topic(names.ENTITY_EVENTS, EntityEventFrame, "contender.entity-events.frame.v1", "feature_service")
PREDICTIONS = Topic(names.PREDICTIONS, PredictionFrame, "contender.predictions.frame.v1", "ab_router")
FEEDBACK = Topic(names.FEEDBACK, FeedbackFrame, "contender.feedback.frame.v1", "feedback_service")
EXPERIMENTS = Topic(
    names.EXPERIMENTS, ExperimentRevision, "contender.experiments.revision.v1", "ab_router", compacted=True
)
VERDICTS = Topic(names.VERDICTS, VerdictEvent, "contender.verdicts.event.v1", "feedback_service")
PARKED_NAME = names.PARKED

ALL: tuple[Topic[msgspec.Struct], ...] = (  # type: ignore[assignment]
    ENTITY_EVENTS,
    PREDICTIONS,
    FEEDBACK,
    EXPERIMENTS,
    VERDICTS,
)


def cloud_event_headers(topic: Topic[EventT], event_id: str, time_rfc3339: str = "") -> list[tuple[str, bytes]]:
    """The record headers of a CloudEvent in binary mode (CloudEvents Kafka protocol binding 1.0.2)."""
    headers = {
        "ce_specversion": "1.0",
        "ce_type": topic.type_name,
        "ce_source": f"contender/{topic.writer}",
        "ce_id": event_id,
        "content-type": "application/json",
    }
    if time_rfc3339:
        headers["ce_time"] = time_rfc3339
    return [(name, value.encode()) for name, value in headers.items()]


class Part(NamedTuple, Generic[EncodedT]):
    """An encoded frame, and the number of its first row."""

    start: int
    encoded: EncodedT


def split(
    rows: Sequence[RowT], encode: Callable[[Sequence[RowT]], EncodedT], limit_bytes: int = FRAME_BYTES
) -> list[Part[EncodedT]]:
    """Encode rows, in order, as frames of at most `limit_bytes` each; a frame of a single row may be longer.

    The same rows are always split alike, and rows that fit in one frame are encoded once.

    Args:
        rows: what to encode.
        encode: makes a frame; its length is that of the record's value in bytes.
        limit_bytes: how long a frame of several rows may be.
    """
    return list(_parts(rows, encode, limit_bytes, 0)) if rows else []


def _parts(
    rows: Sequence[RowT], encode: Callable[[Sequence[RowT]], EncodedT], limit_bytes: int, start: int
) -> Iterator[Part[EncodedT]]:
    encoded = encode(rows)
    if len(encoded) <= limit_bytes or len(rows) == 1:
        yield Part(start, encoded)
        return
    step = max(1, len(rows) // ceil(len(encoded) / limit_bytes))
    for first in range(0, len(rows), step):
        yield from _parts(rows[first : first + step], encode, limit_bytes, start + first)
