"""Which worker merges what while partitions change hands: nothing is lost, whoever dies."""

import numpy as np
import pytest

from contender.features import Entity, EventSource, FeatureView, count
from contender.features.catalogue import Catalogue
from services.feature_service.definitions import definitions_for_tests
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.handlers import Merging
from services.feature_service.online import Question
from services.feature_service.ownership import PartitionOwnership, PartitionTakenError
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.events import EntityEvent

VIEW = FeatureView("trade", Entity("shop", "shop"), EventSource("sales", {"shop": str}), [count("all")], hop="5m")
CATALOGUE = Catalogue.of([VIEW])


def workers(store: MemoryStore, number: int) -> list[Merging]:
    """Workers that all believe partition 0 to be theirs."""
    definitions = definitions_for_tests(CATALOGUE, store, InMemoryRegistry())
    return [Merging(definitions, store, PartitionOwnership(store, {0}), FixedClock(2e9), 0.0) for _ in range(number)]


def position(offset: int) -> FramePosition:
    return FramePosition("", 0, offset)


def frames(*offsets: int) -> list[ReadFrame]:
    return [ReadFrame(position(offset), [EntityEvent("sales", 1e9, {"shop": "a"})]) for offset in offsets]


async def settle(worker: Merging, offset: int, token: str) -> None:
    await worker.settle([(position(offset), token)])


async def fill(worker: Merging, *offsets: int) -> bool:
    """As a filler does that has read the partition up to its end."""
    token = await worker.ownership.acquire(0)
    await worker.merge_into(frames(*offsets), lambda *_: True)
    return await worker.ownership.mark_filled(worker.definitions.current.rings.all(), 0, token)


async def counted(worker: Merging) -> int:
    question = Question(
        worker.definitions.current, CATALOGUE.features(["trade:count_all"]), {"shop": ["a"]}, np.array([2e9]), 1
    )
    (column,) = await question.answer(worker.store)
    return column.values[0]


async def test_what_was_read_before_a_partition_was_given_up_does_not_take_it_back():
    store = MemoryStore()
    first, second, third = workers(store, 3)
    await first.merge(frames(0))
    first.ownership.forget([0])
    token = await second.ownership.acquire(0)
    assert (await first.merge(frames(1))).tokens == {}
    assert second.ownership.token(0) == token
    assert await fill(second, 0, 1)
    second.ownership.forget([0])
    first.ownership.assign([0])
    token = (await first.merge(frames(2))).tokens[0]
    await settle(first, 2, token)
    assert await store.applied([0]) == [2]
    await third.merge(frames(3))  # reads on behind what is applied
    assert await counted(third) == 4


async def test_what_a_former_owner_has_merged_is_not_noted_as_applied():
    store = MemoryStore()
    first, second = workers(store, 2)
    token = (await first.merge(frames(0, 1))).tokens[0]
    assert await fill(second, 0)
    first.ownership.forget([0])
    await settle(first, 1, token)
    assert await store.applied([0]) == [None]
    await settle(second, 0, second.ownership.token(0))
    assert await store.applied([0]) == [0]


async def test_a_worker_whose_partition_was_taken_unawares_ends_and_nothing_is_lost():
    store = MemoryStore()
    first, second, again = workers(store, 3)
    token = (await first.merge(frames(0))).tokens[0]
    assert await fill(second, 0)
    await first.merge(frames(1))  # has not heard of it, and passes the ring by
    with pytest.raises(PartitionTakenError):
        await settle(first, 1, token)
    assert await store.applied([0]) == [None]
    await again.merge(frames(0, 1))
    assert await counted(again) == 2


async def test_a_store_that_has_lost_everything_is_begun_with_anew():
    store = MemoryStore()
    (worker,) = workers(store, 1)
    token = (await worker.merge(frames(0))).tokens[0]
    store._owners.clear()
    await settle(worker, 0, token)
    assert worker.ownership.token(0) == ""
    assert (await worker.merge(frames(1))).tokens[0] != token


async def test_what_is_filled_of_a_store_that_has_lost_everything_is_handed_over_the_next_time():
    store = MemoryStore()
    (worker,) = workers(store, 1)
    assert await fill(worker, 0)
    store._owners.clear()
    store._filled.clear()
    assert not await fill(worker, 0)
    assert await fill(worker, 0)
    assert await store.filled_rings([0]) == [frozenset(ring.name for ring in worker.definitions.current.rings.all())]


async def test_a_store_that_was_filled_anew_is_as_far_as_the_stream_had_come_and_no_farther():
    store = MemoryStore()
    (worker,) = workers(store, 1)
    token = await worker.ownership.acquire(0)
    await worker.ownership.record_filled(0, 9, token)
    assert await store.applied([0]) == [None]
    worker.ownership.note_done(0, 5)
    await worker.ownership.record_filled(0, 9, token)
    assert await store.applied([0]) == [5]
    await settle(worker, 8, token)
    store._applied.clear()
    await worker.ownership.record_filled(0, 7, token)
    assert await store.applied([0]) == [7]
    worker.ownership.assign([0])
    store._applied.clear()
    await worker.ownership.record_filled(0, 7, await worker.ownership.acquire(0))
    assert await store.applied([0]) == [None]


async def test_a_partition_that_comes_back_is_fed_as_it_is_then():
    store = MemoryStore()
    first, second = workers(store, 2)
    await first.merge(frames(0))
    assert await fill(second, 0)
    first.ownership.assign([0])
    await first.merge(frames(1))
    assert await counted(first) == 2
    first.ownership.assign([1])
    assert (first.ownership.owned, first.ownership.token(0)) == ({1}, "")


async def test_rings_are_not_declared_filled_by_who_has_given_the_partition_up():
    store = MemoryStore()
    (worker,) = workers(store, 1)
    token = await worker.ownership.acquire(0)
    worker.ownership.forget([0])
    assert not await worker.ownership.mark_filled(worker.definitions.current.rings.all(), 0, token)
    assert await store.filled_rings([0]) == [frozenset()]


class GivenUpMeanwhile(MemoryStore):
    """Where a partition is given up while the store is asked about it."""

    def __init__(self) -> None:
        super().__init__()
        self.feeds: PartitionOwnership | None = None

    async def own(self, partition: int, token: str) -> frozenset[str]:
        owned = await super().own(partition, token)
        if self.feeds:
            self.feeds.forget([partition])
        return owned

    async def mark_filled(self, names, partition: int, token: str) -> str:
        done = await super().mark_filled(names, partition, token)
        if self.feeds:
            self.feeds.forget([partition])
        return done


async def test_frames_of_a_partition_that_is_given_up_meanwhile_still_go_where_its_stream_goes():
    store = GivenUpMeanwhile()
    first, second = workers(store, 2)
    assert await fill(first, 0)
    store.feeds = second.ownership
    assert (await second.merge(frames(1))).tokens == {}
    assert await counted(first) == 2


async def test_a_partition_that_is_given_up_during_the_handover_is_not_fed():
    store = GivenUpMeanwhile()
    (worker,) = workers(store, 1)
    token = await worker.ownership.acquire(0)
    store.feeds = worker.ownership
    assert not await worker.ownership.mark_filled(worker.definitions.current.rings.all(), 0, token)
    assert worker.ownership.token(0) == ""
