"""One contract for every place that snapshots are kept in."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from contender.contracts.feedback_service import Counts
from embedded.ports import free_ports
from embedded.valkey import Valkey
from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    DaySnapshot,
    ExperimentUpdate,
    GroupHeader,
    GroupSnapshot,
    PartitionStatus,
    SumsSnapshot,
)
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.store import (
    InMemorySnapshots,
    RedisSnapshots,
    SnapshotStore,
)

NAME = 'price <script> "\u00e4'


@pytest.fixture(params=["memory", "valkey"])
async def store(request) -> AsyncIterator[SnapshotStore]:
    if request.param == "memory":
        yield InMemorySnapshots()
        return
    redis = Redis.from_url(request.getfixturevalue("valkey").removesuffix("/0") + "/6")
    await redis.flushdb()
    yield RedisSnapshots(redis, partitions=4)
    await redis.aclose()


def status(partition: int, offset: int = 3) -> PartitionStatus:
    return PartitionStatus(partition, {"predictions": offset}, Counts(predictions=offset), 2.0, 1.5)


def cohort(predictions: int) -> CohortSnapshot:
    sums = SumsSnapshot({3: 1}, {"log_loss": {3: 0.1}, "auc": {1999: 1.0}})
    return CohortSnapshot(60.0, Counts(predictions=predictions), {3: predictions}, sums, SumsSnapshot())


def group(cohorts: list[CohortSnapshot] | None = None) -> GroupSnapshot:
    return GroupSnapshot(
        experiment=NAME,
        epoch=1,
        variant="champion",
        task="binary",
        window_s=0.0,
        missing="excluded",
        model="m",
        versions=["v"],
        probability=0.5,
        watermark=1.5,
        cohorts=cohorts or [],
        arrived_at=1.25,
    )


def update(partition: int, changed: dict[str, int], present: list[str], **changes) -> ExperimentUpdate:
    named = {f"{partition}:{name}": cohort(rows) for name, rows in changed.items()}
    header = GroupHeader(group(), [f"{partition}:{name}" for name in present])
    return ExperimentUpdate(partition, NAME, [header], named, **{"gone": [], "complete": False, **changes})


async def rows(store: SnapshotStore) -> dict[int, list[list[int]]]:
    """By partition the predictions of each cohort of each group."""
    return {
        snapshot.partition: [[cohort.counts.predictions for cohort in group.cohorts] for group in snapshot.groups]
        for snapshot in await store.read(NAME)
    }


async def test_nothing_is_there_at_first(store: SnapshotStore):
    assert (await store.read(NAME), await store.experiments()) == ([], [])


async def test_what_was_written_is_read_by_partition(store: SnapshotStore):
    for partition in (3, 0):
        assert await store.write_status(status(partition))
        await store.write(update(partition, {"g:1": partition + 1}, ["g:1"]))
    first, second = await store.read(NAME)
    assert (first.status, second.status) == (status(0), status(3))
    assert (first.groups, second.groups) == ([group([cohort(1)])], [group([cohort(4)])])
    assert await store.experiments() == [NAME]
    assert [snapshot.groups for snapshot in await store.read("another")] == [[], []]


async def test_a_status_takes_the_place_of_the_last_one_and_tells_whether_it_was_there(store: SnapshotStore):
    assert await store.write_status(status(1, 5), None)
    assert await store.write_status(status(1, 6), status(1, 5))
    assert not await store.write_status(status(1, 2), status(1, 5))
    assert [snapshot.status for snapshot in await store.read(NAME)] == [status(1, 2)]


async def test_an_update_changes_what_differs_and_takes_away_what_is_gone(store: SnapshotStore):
    await store.write_status(status(0))
    await store.write(update(0, {"g:1": 1, "g:2": 2}, ["g:1", "g:2"]))
    await store.write(update(0, {"g:matured": 7}, ["g:matured", "g:2"], gone=["0:g:1"]))
    assert await rows(store) == {0: [[7, 2]]}


async def test_a_complete_update_leaves_nothing_of_what_another_worker_wrote(store: SnapshotStore):
    for partition in (0, 1):
        await store.write_status(status(partition))
        await store.write(update(partition, {"old:1": 1}, ["old:1"]))
    await store.write(update(0, {"g:2": 2}, ["g:2"], complete=True))
    await store.write(update(0, {}, ["g:2", "old:1"]))
    assert await rows(store) == {0: [[2]], 1: [[1]]}


async def test_days_are_read_with_their_group_and_an_older_release_passes_over_them(store: SnapshotStore):
    await store.write_status(status(0))
    days = {f"0/g/{number}": DaySnapshot(number, 5, {"log_loss": {0: 5.0, 1: 2.5}}) for number in (-1, 0, 7)}
    header = GroupHeader(group(), ["0:g:1"], list(days))
    await store.write(ExperimentUpdate(0, NAME, [header], {"0:g:1": cohort(1)}, [], complete=True, days=days))
    (read,) = (await store.read(NAME))[0].groups
    assert (read.days, read.cohorts) == (list(days.values()), [cohort(1)])
    header = GroupHeader(group(), [], ["0/g/0"])
    await store.write(ExperimentUpdate(0, NAME, [header], {}, ["0:g:1"], complete=False))
    await store.write(ExperimentUpdate(0, NAME, [header], {}, [], complete=True, days={"0/g/0": days["0/g/0"]}))
    await store.write(ExperimentUpdate(0, NAME, [GroupHeader(group(), [], list(days))], {}, [], complete=False))
    assert [day.day for day in (await store.read(NAME))[0].groups[0].days] == [0]
    assert not any(":" in field for field in days)  # an older release reads every field with a colon as a cohort


async def test_the_store_can_be_reached(store: SnapshotStore):
    await store.ping()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of its own, which may be stopped."""
    server = Valkey(tmp_path, free_ports(1)[0])
    server.start()
    try:
        server.wait_ready(60)
        yield server
    finally:
        server.kill()


async def test_a_frozen_server_is_an_error_in_time_and_serves_again_afterwards(own_valkey: Valkey):
    store = RedisSnapshots.connect(own_valkey.url, partitions=1)
    await store.write_status(status(0))
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            with pytest.raises(ResultsUnavailable):
                await store.read(NAME)
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    assert [snapshot.status for snapshot in await store.read(NAME)] == [status(0)]
    await store.close()


async def test_an_unreachable_server_is_an_error_that_can_be_handled(unused_tcp_port: int):
    store = RedisSnapshots.connect(f"redis://127.0.0.1:{unused_tcp_port}/0", partitions=1)
    for call in (store.ping, store.experiments, lambda: store.write_status(status(0))):
        with pytest.raises(ResultsUnavailable):
            await call()
    await store.close()
