"""The catalogue of topics: name, key, the one event type each carries, and who writes it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError

from contender.contracts import topics as names
from contender.contracts.ab_router import ExperimentRevision
from contender.contracts.inference_service import ModelVersion
from shared.events import EntityEventFrame, FeedbackFrame, PredictionFrame
from shared.json_bounds import has_too_many_parts
from shared.logs import logger
from shared.retention import COMPACTED, Retention

LARGEST_RECORD_BYTES = 8 * 1024**2 - 64 * 1024
"""The largest value of a record: the brokers' message.max.bytes, 8 MiB here, less room for keys and headers."""

EventT = TypeVar("EventT", bound=msgspec.Struct)
ShapeT = TypeVar("ShapeT")
_CREATED_WITHIN_S = 20
_POLL_S = 0.1
_END_CHARACTERS = 200
_MOST_PARTS = 500_000
"""Arrays and objects of a record: 200,000 rows of three classes fit into one, and 8 MB of `[],` would take 180 MB."""
_SET_FOR_TOPIC = 1  # the source of a value in DescribeConfigs, from its version 1 on


class TopicError(RuntimeError):
    """A topic is not as it must be; the message says what to do."""


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
        msgspec.DecodeError: the bytes are not JSON, or JSON of another shape, of endless depth or of too many parts.
    """
    if has_too_many_parts(value, _MOST_PARTS):
        raise msgspec.DecodeError(f"there are more than {_MOST_PARTS} arrays and objects")
    try:
        return msgspec.json.decode(value, type=shape)
    except msgspec.ValidationError as error:  # which quotes a value however long it is, and then names its field
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
MODELS = Topic("models", ModelVersion, "contender.models.version.v1", "inference_service", compacted=True)
PARKED_NAME = names.PARKED

ALL: tuple[Topic[msgspec.Struct], ...] = (ENTITY_EVENTS, PREDICTIONS, FEEDBACK, EXPERIMENTS, MODELS)  # type: ignore[assignment]


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


async def ensure_topics(
    bootstrap: str,
    *,
    partitions: int,
    replication: int,
    retention: Retention | None = None,
    changelogs: Sequence[str] = (),
) -> None:
    """Create the topics that are missing, give all of them their limits, and return once the cluster tells of them.

    Args:
        bootstrap: Kafka bootstrap servers, comma-separated.
        partitions: partitions of every topic but the compacted ones of the catalogue, which have one.
        replication: replicas of a topic that is created here.
        retention: how much topics keep, those that are there already, too; None leaves that to the cluster.
        changelogs: names of a worker's changelogs. Faust would create them too, but a group that is formed before they
            are known hands out no changelog partitions, and its members then recover nothing.

    Raises:
        aiokafka.errors.KafkaError: the cluster cannot be reached or refuses.
        TopicError: a topic can't be created, or has another number of partitions.
    """
    wanted = [
        *(
            _Wanted(topic.name, 1, COMPACTED) if topic.compacted else _kept(topic.name, partitions, retention)
            for topic in ALL
        ),
        _kept(PARKED_NAME, partitions, retention),
        *(_Wanted(name, partitions, COMPACTED) for name in changelogs),
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(_CREATED_WITHIN_S):
            refusals: dict[str, str] = {}
            while missing := await _missing(admin, wanted):
                if refused := [f"{one.name}: {refusals[one.name]}" for one in missing if one.name in refusals]:
                    raise TopicError("topics can't be created: " + "; ".join(refused))
                refusals = await _create(admin, missing, replication)
                await asyncio.sleep(_POLL_S)
            await _configure(admin, wanted)
    except TimeoutError as error:
        raise TopicError(f"topics were created, but Kafka does not tell of them after {_CREATED_WITHIN_S} s") from error
    finally:
        await admin.close()


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    partitions: int
    configuration: Mapping[str, str] = field(default_factory=dict)


def _kept(name: str, partitions: int, retention: Retention | None) -> _Wanted:
    return _Wanted(name, partitions, retention.configuration(name, partitions) if retention else {})


async def _missing(admin: AIOKafkaAdminClient, wanted: Sequence[_Wanted]) -> list[_Wanted]:
    described = await admin.describe_topics([one.name for one in wanted])
    present = {topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]}
    for one in wanted:
        found = present.get(one.name, one.partitions)
        if found != one.partitions:
            raise TopicError(
                f"topic {one.name} has {found} partitions where {one.partitions} are expected: "
                "set CONTENDER_PARTITIONS to what the topics have"
            )
    return [one for one in wanted if one.name not in present]


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[_Wanted], replication: int) -> dict[str, str]:
    """Ask for topics, and tell why some were refused; another process may have been faster, which is no refusal."""
    topics = [
        NewTopic(
            one.name,
            num_partitions=one.partitions,
            replication_factor=replication,
            topic_configs=dict(one.configuration),
        )
        for one in missing
    ]
    answer = await admin.create_topics(topics)
    harmless = {NoError.errno, TopicAlreadyExistsError.errno}
    return {
        name: f"{message[0] if message else ''} (error {code})".strip()
        for name, code, *message in answer.topic_errors
        if code not in harmless
    }


async def _configure(admin: AIOKafkaAdminClient, wanted: Sequence[_Wanted]) -> None:
    """Change the configuration of topics that an older release or another setting has made.

    Whoever may not change a topic goes on with it as it is.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, one.name) for one in wanted if one.configuration]
    if not resources:
        return
    configuration = {one.name: one.configuration for one in wanted}
    changes = []
    for name, entries in await _described(admin, resources):
        effective = {entry[0]: entry[1] for entry in entries}
        if any(effective.get(key) != value for key, value in configuration[name].items()):
            # What is not named here would go back to the cluster's default.
            own = {entry[0]: entry[1] for entry in entries if entry[3] == _SET_FOR_TOPIC}
            changes.append(ConfigResource(ConfigResourceType.TOPIC, name, {**own, **configuration[name]}))
    if not changes:
        return
    for answer in await admin.alter_configs(changes):
        for code, message, _, name in answer.resources:
            if code != NoError.errno:
                _log_refusal(name, code, message)


async def _described(
    admin: AIOKafkaAdminClient, resources: list[ConfigResource]
) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """The configuration of topics: name, value, and where it comes from, among others."""
    described = []
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            if code == NoError.errno:
                described.append((name, entries))
            else:
                _log_refusal(name, code, message)
    return described


def _log_refusal(topic: str, code: int, message: str | None) -> None:
    logger(__name__).warning("a topic keeps its configuration", topic=topic, error_code=code, reason=message)
