"""One contract for every place that snapshots are kept in."""

from collections.abc import AsyncIterator

import pytest
from redis import RedisError
from redis.asyncio import Redis

from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    Counts,
    GroupSnapshot,
    MetricSums,
    PartitionSnapshot,
)
from services.feedback_service.store import InMemorySnapshots, RedisSnapshots, SnapshotStore


@pytest.fixture(params=["memory", "valkey"])
async def store(request) -> AsyncIterator[SnapshotStore]:
    if request.param == "memory":
        yield InMemorySnapshots()
        return
    redis = Redis.from_url(request.getfixturevalue("valkey").removesuffix("/0") + "/6")
    await redis.flushdb()
    yield RedisSnapshots(redis, partitions=4)
    await redis.aclose()


def snapshot(partition: int, predictions: int = 1) -> PartitionSnapshot:
    sums = MetricSums({3: 1}, {"log_loss": {3: 0.1}}, {"log_loss": 0.01}, {}, {999: 1})
    cohort = CohortSnapshot(60.0, Counts(predictions=predictions), {3: predictions}, sums, MetricSums())
    group = GroupSnapshot(
        experiment="e",
        epoch=1,
        variant="champion",
        task="binary",
        window_s=0.0,
        missing="excluded",
        model="m",
        versions=["v"],
        probability=0.5,
        watermark=1.5,
        cohorts=[cohort],
    )
    return PartitionSnapshot(partition, {"predictions": 3}, cohort.counts, [group], 2.0)


async def test_nothing_is_there_at_first(store: SnapshotStore):
    assert await store.read() == []


async def test_what_was_written_is_read_by_partition(store: SnapshotStore):
    await store.write(snapshot(3))
    await store.write(snapshot(0))
    assert await store.read() == [snapshot(0), snapshot(3)]


async def test_a_snapshot_takes_the_place_of_the_last_one(store: SnapshotStore):
    await store.write(snapshot(1, predictions=5))
    await store.write(snapshot(1, predictions=2))
    assert await store.read() == [snapshot(1, predictions=2)]


async def test_the_store_can_be_reached(store: SnapshotStore):
    await store.ping()


async def test_an_unreachable_redis_is_an_error_that_can_be_handled(unused_tcp_port: int):
    redis = Redis.from_url(f"redis://127.0.0.1:{unused_tcp_port}/0")
    with pytest.raises(RedisError):
        await RedisSnapshots(redis, partitions=1).ping()
    await redis.aclose()
