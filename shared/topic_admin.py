"""Creates the topics of the catalogue, and gives them their limits."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError

from shared.logs import logger
from shared.retention import COMPACTED, Retention
from shared.topics import ALL, PARKED_NAME

_CREATED_WITHIN_S = 20
_POLL_S = 0.1
_SET_FOR_TOPIC = 1  # the source of a value in DescribeConfigs, from its version 1 on


class TopicError(RuntimeError):
    """A topic is not as it must be; the message says what to do."""


async def ensure_topics(
    bootstrap: str,
    *,
    partitions: int,
    replication: int,
    retention: Retention | None = None,
    changelogs: Sequence[str] = (),
) -> None:
    """Create the topics that are missing, give all of them their limits, and return once the cluster lists them.

    Args:
        bootstrap: Kafka bootstrap servers, comma-separated.
        partitions: partitions of every topic but the compacted ones of the catalogue, which have one.
        replication: replicas of a topic that is created here.
        retention: how much all topics keep, existing ones included; None leaves that to the cluster.
        changelogs: names of a worker's changelogs. Faust would create them too, but a group that is formed before they
            are known hands out no changelog partitions, and its members then recover nothing.

    Raises:
        aiokafka.errors.KafkaError: the cluster cannot be reached or refuses.
        TopicError: a topic can't be created, or has another number of partitions.
    """
    plans = [
        *(
            TopicPlan(topic.name, 1, COMPACTED) if topic.compacted else _kept(topic.name, partitions, retention)
            for topic in ALL
        ),
        _kept(PARKED_NAME, partitions, retention),
        *(TopicPlan(name, partitions, COMPACTED) for name in changelogs),
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(_CREATED_WITHIN_S):
            refusals: dict[str, str] = {}
            while missing := await _missing(admin, plans):
                if refused := [f"{plan.name}: {refusals[plan.name]}" for plan in missing if plan.name in refusals]:
                    raise TopicError("topics can't be created: " + "; ".join(refused))
                refusals = await _create(admin, missing, replication)
                await asyncio.sleep(_POLL_S)
            await _configure(admin, plans)
    except TimeoutError as error:
        raise TopicError(f"topics were created, but Kafka does not list them after {_CREATED_WITHIN_S} s") from error
    finally:
        await admin.close()


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it should be."""

    name: str
    partitions: int
    configuration: Mapping[str, str] = field(default_factory=dict)


def _kept(name: str, partitions: int, retention: Retention | None) -> TopicPlan:
    return TopicPlan(name, partitions, retention.configuration(name, partitions) if retention else {})


async def _missing(admin: AIOKafkaAdminClient, plans: Sequence[TopicPlan]) -> list[TopicPlan]:
    described = await admin.describe_topics([plan.name for plan in plans])
    present = {topic["topic"]: len(topic["partitions"]) for topic in described if topic["partitions"]}
    for plan in plans:
        partitions = present.get(plan.name, plan.partitions)
        if partitions != plan.partitions:
            raise TopicError(
                f"topic {plan.name} has {partitions} partitions where {plan.partitions} are expected: "
                "set CONTENDER_PARTITIONS to what the topics have"
            )
    return [plan for plan in plans if plan.name not in present]


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[TopicPlan], replication: int) -> dict[str, str]:
    """Create topics; return why Kafka refused some. A topic that another process created first counts as created."""
    topics = [
        NewTopic(
            plan.name,
            num_partitions=plan.partitions,
            replication_factor=replication,
            topic_configs=dict(plan.configuration),
        )
        for plan in missing
    ]
    answer = await admin.create_topics(topics)
    harmless = {NoError.errno, TopicAlreadyExistsError.errno}
    return {
        name: f"{message[0] if message else ''} (error {code})".strip()
        for name, code, *message in answer.topic_errors
        if code not in harmless
    }


async def _configure(admin: AIOKafkaAdminClient, plans: Sequence[TopicPlan]) -> None:
    """Change the configuration of topics that an older release or another setting created.

    A topic that this user may not change stays as it is.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, plan.name) for plan in plans if plan.configuration]
    if not resources:
        return
    configuration = {plan.name: plan.configuration for plan in plans}
    changes = []
    for name, entries in await _configurations(admin, resources):
        effective = {entry[0]: entry[1] for entry in entries}
        if any(effective.get(key) != value for key, value in configuration[name].items()):
            # Kafka resets every key that is not listed here to the cluster's default.
            own = {entry[0]: entry[1] for entry in entries if entry[3] == _SET_FOR_TOPIC}
            changes.append(ConfigResource(ConfigResourceType.TOPIC, name, {**own, **configuration[name]}))
    if not changes:
        return
    for answer in await admin.alter_configs(changes):
        for code, message, _, name in answer.resources:
            if code != NoError.errno:
                _log_refusal(name, code, message)


async def _configurations(
    admin: AIOKafkaAdminClient, resources: list[ConfigResource]
) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Each topic's name and the entries of its configuration: name, value and source, among others."""
    described = []
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            if code == NoError.errno:
                described.append((name, entries))
            else:
                _log_refusal(name, code, message)
    return described


def _log_refusal(topic: str, code: int, message: str | None) -> None:
    logger(__name__).warning(
        "a topic's configuration can't be read or changed, and stays as it is",
        topic=topic,
        error_code=code,
        reason=message,
    )
