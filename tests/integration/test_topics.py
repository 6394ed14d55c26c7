"""Topics get their limits when they are made, and when they are there already."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from shared.retention import COMPACTED, Retention
from shared.settings import Settings
from shared.topic_admin import ensure_topics
from shared.topics import ALL, PARKED_NAME

DAY_MS = 86_400_000


@pytest.fixture
def empty_kafka(kafka_jars: list[Path], tmp_path: Path) -> Iterator[str]:
    broker = KafkaBroker(tmp_path, *free_ports(2), kafka_jars, heap="256m")
    broker.start()
    try:
        broker.wait_ready(60)
        yield broker.bootstrap
    finally:
        broker.kill()


async def settled(bootstrap: str, wanted: Callable[[dict[str, dict[str, str]]], bool]) -> dict[str, dict[str, str]]:
    """What is set for each topic, once the broker tells of what was changed just before."""
    async with asyncio.timeout(60):
        while not wanted(topics := await own_settings(bootstrap)):
            await asyncio.sleep(0.05)
    return topics


async def own_settings(bootstrap: str) -> dict[str, dict[str, str]]:
    """By topic what is set for it and not by the broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    names = [name for name in await admin.list_topics() if not name.startswith("__")]
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    await admin.close()
    return {
        name: {entry[0]: entry[1] for entry in entries if entry[3] == 1} for _, _, _, name, entries in answer.resources
    }


async def test_new_topics_have_their_limits_and_a_changed_setting_reaches_them(empty_kafka: str):
    settings = Settings()
    kept = settings.retention
    await ensure_topics(empty_kafka, partitions=4, replication=1, retention=kept, changelogs=["a-changelog"])
    topics = await own_settings(empty_kafka)
    assert {name: topics[name] for name in kept.bytes_by_topic} == {
        name: kept.configuration(name, 4) for name in kept.bytes_by_topic
    }
    assert topics["experiments"] == topics["a-changelog"] == dict(COMPACTED)
    less = Retention(3600, {**kept.bytes_by_topic, "predictions": 0})
    await ensure_topics(empty_kafka, partitions=4, replication=1, retention=less)
    topics = await settled(empty_kafka, lambda topics: topics["parked"]["retention.ms"] == "3600000")
    assert (topics["predictions"]["retention.bytes"], topics["feedback"]["retention.ms"]) == ("-1", "3600000")


async def test_topics_of_an_older_installation_get_limits_and_keep_what_else_is_set(empty_kafka: str):
    names = [topic.name for topic in ALL] + [PARKED_NAME, "a-changelog"]
    admin = AIOKafkaAdminClient(bootstrap_servers=empty_kafka)
    await admin.start()
    await admin.create_topics(
        [
            NewTopic(
                name,
                1 if name == "experiments" else 4,
                1,
                topic_configs={"cleanup.policy": "compact"} if "log" in name else {"max.compaction.lag.ms": "7000"},
            )
            for name in names
        ]
    )
    await admin.close()
    kept = Retention(7 * DAY_MS / 1000, {"predictions": 2 * 1024**3})
    await ensure_topics(empty_kafka, partitions=4, replication=1, retention=kept, changelogs=["a-changelog"])
    topics = await settled(empty_kafka, lambda topics: len(topics["a-changelog"]) == len(COMPACTED))
    assert topics["predictions"] == {**kept.configuration("predictions", 4), "max.compaction.lag.ms": "7000"}
    assert topics["experiments"] == {**COMPACTED, "max.compaction.lag.ms": "7000"}
    assert topics["a-changelog"] == dict(COMPACTED)


async def test_without_a_retention_topics_of_events_stay_as_the_cluster_has_them(empty_kafka: str):
    await ensure_topics(empty_kafka, partitions=2, replication=1)
    topics = await own_settings(empty_kafka)
    assert topics["predictions"].get("retention.bytes") is None
    assert topics["experiments"] == dict(COMPACTED)
