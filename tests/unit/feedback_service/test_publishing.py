"""What readers get: only what has changed, everything again where it was lost, and later where it could not be had."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from services.feedback_service.domain import cell_store
from services.feedback_service.domain.snapshots import ExperimentUpdate, PartitionStatus
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.join import Join
from services.feedback_service.store import InMemorySnapshots
from services.feedback_service.worker import SnapshotPublisher
from shared.clock import FixedClock
from tests.unit.feedback_service.test_join import apply, block, catch_up, feedback, flush, joined, numbers, predictions


@dataclass
class WatchedSnapshots(InMemorySnapshots):
    """A store that notes what is written, and fails when it is told to."""

    updates: list[ExperimentUpdate] = field(default_factory=list)
    statuses: int = 0
    fails: bool = False
    during_write: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        super().__init__()

    async def write(self, update: ExperimentUpdate) -> None:
        self.during_write()
        if self.fails:
            raise ResultsUnavailable("away")
        self.updates.append(update)
        await super().write(update)

    async def write_status(self, status: PartitionStatus, last: PartitionStatus | None = None) -> bool:
        if self.fails:
            raise ResultsUnavailable("away")
        self.statuses += 1
        return await super().write_status(status, last)

    def saved(self) -> tuple[dict, dict]:
        return copy.deepcopy((self._statuses, self._fields))

    def restore(self, saved: tuple[dict, dict]) -> None:
        self._statuses, self._fields = saved

    def lose_everything(self) -> None:
        self._statuses.clear()
        self._fields.clear()


@pytest.fixture
def store() -> WatchedSnapshots:
    return WatchedSnapshots()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1_000.0)


@pytest.fixture
def join() -> Join:
    """Two experiments with two cohorts each."""
    join = joined()
    for offset, (experiment, at) in enumerate((name, at) for name in ("e", "rests") for at in (0.0, 100.0)):
        frame = predictions(f"{experiment}{at}", block(rows=1, at=at, experiment=experiment), offset=offset)
        apply(join, frame)
    return join


@pytest.fixture
def publishing(join, store, clock) -> SnapshotPublisher:
    return SnapshotPublisher(join, store, clock, heartbeat_s=5.0)


async def test_only_the_cohorts_that_changed_are_written(publishing, join, store):
    await publishing.publish()
    assert [(update.experiment, len(update.changed)) for update in store.updates] == [("e", 2), ("rests", 2)]
    apply(join, feedback(("e0.0", 0, 1, 5.0)))
    await publishing.publish()
    assert [(update.experiment, len(update.changed)) for update in store.updates[2:]] == [("e", 1)]


async def test_nothing_is_written_where_nothing_changed_but_a_status_now_and_then(publishing, store, clock):
    for _ in range(3):
        await publishing.publish()
    assert (len(store.updates), store.statuses) == (2, 2)
    clock.advance(5.0)
    await publishing.publish()
    assert (len(store.updates), store.statuses) == (2, 4)


async def test_what_readers_lost_is_written_again(publishing, join, store, clock):
    await publishing.publish()
    store.lose_everything()
    clock.advance(5.0)
    for _ in range(2):
        await publishing.publish()
    assert (await store.read("rests"))[0].groups == [g for g in numbers(join).groups if g.experiment == "rests"]


async def test_what_a_store_has_lost_that_came_back_older_is_written_again(publishing, join, store, clock):
    await publishing.publish()
    saved = store.saved()
    clock.advance(1.0)
    apply(join, feedback(("e0.0", 0, 1, 5.0)))
    await publishing.publish()
    store.restore(saved)
    clock.advance(5.0)
    for _ in range(2):
        await publishing.publish()
    (group,) = (await store.read("e"))[0].groups
    assert sum(cohort.counts.labelled for cohort in group.cohorts) == 1


async def test_what_was_written_shortly_before_the_store_went_away_is_written_again(publishing, join, store, clock):
    await publishing.publish()
    saved = store.saved()
    apply(join, feedback(("e0.0", 0, 1, 5.0)))
    (update,) = join.partitions[0].aggregates.updates(20)
    join.partitions[0].aggregates.publish_again(["rests"])
    await store.write(update)
    store.fails = True
    await publishing.publish()
    store.fails = False
    store.restore(saved)
    await publishing.publish()
    (group,) = (await store.read("e"))[0].groups
    assert sum(cohort.counts.labelled for cohort in group.cohorts) == 1


async def test_a_status_tells_of_no_record_that_the_experiments_written_before_it_lack(publishing, join, store):
    store.during_write = lambda: apply(join, feedback(("e0.0", 0, 1, 5.0)))
    await publishing.publish()
    (first, *_) = await store.read("e")
    labelled = sum(cohort.counts.labelled for group in first.groups for cohort in group.cohorts)
    assert (first.counts.labelled, labelled, first.offsets) == (0, 0, {"predictions": 3})


async def test_what_could_not_be_written_stays_due(publishing, join, store):
    store.fails = True
    await publishing.publish()
    store.fails = False
    await publishing.publish()
    assert sorted(await store.experiments()) == ["e", "rests"]
    read = (await store.read("e"))[0].groups + (await store.read("rests"))[0].groups
    assert read == numbers(join).groups


async def test_readers_see_folded_cohorts_as_one(publishing, join, store):
    await publishing.publish()
    apply(join, predictions("late", block(rows=2, at=10_000.0), offset=4))
    catch_up(join)
    flush(join)
    await publishing.publish()
    (group,) = (await store.read("e"))[0].groups
    assert [(cohort.counts.predictions, cohort.is_matured) for cohort in group.cohorts] == [(2, True), (2, False)]
    assert [(day.day, day.rows) for day in group.days] == [(0, 2)]
    assert group == numbers(join).groups[0]


async def test_a_day_is_written_where_it_has_changed_and_nowhere_else(publishing, join, store):
    apply(join, predictions("next", block(rows=2, at=90_000.0), offset=4))
    apply(join, predictions("last", block(rows=2, at=190_000.0), offset=5))
    catch_up(join)
    flush(join)
    await publishing.publish()
    (whole,) = [update for update in store.updates if update.experiment == "e"]
    assert [(day.day, day.rows) for day in whole.days.values()] == [(0, 2), (1, 2)]
    apply(join, feedback(("e0.0", 0, 1, 5.0)))
    await publishing.publish()
    changed = store.updates[-1]
    assert [day.day for day in changed.days.values()] == [0]
    (day,) = changed.days.values()
    assert day.totals["accuracy"][0] == 1.0
    assert (await store.read("e"))[0].groups[0] == numbers(join).groups[0]


async def test_a_missing_label_that_means_negative_counts_in_its_day(store, clock):
    join = joined()
    apply(join, predictions("f", block(rows=3, missing="negative")))
    apply(join, predictions("last", block(rows=2, at=9_000.0, missing="negative"), offset=1))
    apply(join, feedback(("f", 0, 1, 5.0)))
    catch_up(join)
    flush(join)
    (group,) = numbers(join).groups
    (day,) = group.days
    assert (day.rows, day.totals["log_loss"][0]) == (3, 3.0)


async def test_what_readers_get_does_not_stay_in_memory(publishing, join, monkeypatch):
    monkeypatch.setattr(cell_store, "CELLS_IN_MEMORY", 2)
    flush(join)
    expected = numbers(join)
    aggregates = join.partitions[0].aggregates
    aggregates.publish_again()
    await publishing.publish()
    assert len(aggregates._cells._cells) <= 2 + 1  # and the counts of the partition, for its status
    apply(join, feedback(("e0.0", 0, 1, 5.0)))
    changed = numbers(join)
    await publishing.publish()
    assert numbers(join) == changed != expected
