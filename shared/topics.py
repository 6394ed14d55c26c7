"""The catalogue of topics: name, key, the one event type each carries, and who writes it."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

from shared.events import EntityEventFrame, ExperimentRevision, FeedbackFrame, ModelVersion, PredictionFrame

EventT = TypeVar("EventT", bound=msgspec.Struct)


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
        return msgspec.json.decode(value, type=self.event)


ENTITY_EVENTS = Topic("entity-events", EntityEventFrame, "contender.entity-events.frame.v1", "feature_service")
PREDICTIONS = Topic("predictions", PredictionFrame, "contender.predictions.frame.v1", "ab_router")
FEEDBACK = Topic("feedback", FeedbackFrame, "contender.feedback.frame.v1", "feedback_service")
EXPERIMENTS = Topic("experiments", ExperimentRevision, "contender.experiments.revision.v1", "ab_router", compacted=True)
MODELS = Topic("models", ModelVersion, "contender.models.version.v1", "inference_service", compacted=True)
PARKED_NAME = "parked"

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


async def ensure_topics(bootstrap: str, *, partitions: int, replication: int) -> None:
    """Create the topics that are missing; leave those that stand as they are.

    Raises:
        aiokafka.errors.KafkaError: the cluster cannot be reached or refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        present = set(await admin.list_topics())
        wanted = [
            NewTopic(
                name,
                num_partitions=1 if compacted else partitions,
                replication_factor=replication,
                topic_configs={"cleanup.policy": "compact"} if compacted else {},
            )
            for name, compacted in [*((t.name, t.compacted) for t in ALL), (PARKED_NAME, False)]
            if name not in present
        ]
        if wanted:
            try:
                await admin.create_topics(wanted)
            except TopicAlreadyExistsError:  # another service was faster
                return
    finally:
        await admin.close()
