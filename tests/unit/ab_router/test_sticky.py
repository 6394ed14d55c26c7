"""Units keep what they got first, within the limits of memory, and whatever the store does."""

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from services.ab_router.domain.assignment import FirstAssignment, UnitKey
from services.ab_router.settings import RouterSettings
from services.ab_router.sticky import open_sticky_units
from services.ab_router.stored_assignments import AssignmentsUnavailableError, InMemoryAssignments

FIRST = FirstAssignment("new", 1, 0.1)
LATER = FirstAssignment("old", 2, 0.5)


def keys(count: int, experiment: str = "e") -> list[UnitKey]:
    return [UnitKey(experiment, f"user-{number}") for number in range(count)]


def total(metric: str) -> float:
    return REGISTRY.get_sample_value(metric) or 0.0


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def store() -> InMemoryAssignments:
    return InMemoryAssignments()


@pytest.fixture
def limits(tmp_path) -> RouterSettings:
    return RouterSettings(data=tmp_path, breaker_rest_s=0.001, assignment_queue_limit=10, assignment_memory_limit=20)


async def test_units_are_written_together_once_and_read_from_memory(store, limits):
    async with open_sticky_units(store, limits) as units:
        units.note([(key, FIRST) for key in keys(5)])
        units.note([(key, FIRST) for key in keys(5)])
        assert await units.read(keys(5)) == dict.fromkeys(keys(5), FIRST)
        await wait_for(lambda: len(store.assignments) == 5)
        units.note([(key, LATER) for key in keys(5)])
        assert await units.read(keys(5)) == dict.fromkeys(keys(5), FIRST)
    assert (store.reads, store.written) == (0, 5)


async def test_units_that_another_router_wrote_first_are_read_and_not_written_again(store, limits):
    store.assignments = dict.fromkeys(keys(2), FIRST)
    async with open_sticky_units(store, limits) as units:
        assert await units.read(keys(3)) == {**dict.fromkeys(keys(2), FIRST), keys(3)[2]: None}
        units.note([(key, LATER) for key in keys(3)])
        await wait_for(lambda: len(store.assignments) == 3)
        assert await units.read(keys(3)) == {**dict.fromkeys(keys(2), FIRST), keys(3)[2]: LATER}
    assert (store.reads, store.written) == (1, 1)


async def test_a_write_that_came_second_leaves_the_unit_to_be_read(store, limits):
    async with open_sticky_units(store, limits) as units:
        store.assignments = dict.fromkeys(keys(1), FIRST)
        units.note([(keys(1)[0], LATER)])
        await wait_for(lambda: store.written == 1)
        assert await units.read(keys(1)) == dict.fromkeys(keys(1), FIRST)
        units.note([(keys(1)[0], LATER)])
    assert store.written == 1


async def test_concurrent_calls_share_a_reading(store, limits):
    async with open_sticky_units(store, limits) as units:
        await asyncio.gather(*(units.read([key]) for key in keys(50)))
    assert store.reads <= 2


async def test_during_an_outage_only_the_first_call_asks_and_units_are_kept_for_later(store, limits):
    before = total("contender_first_assignments_unreadable_total")
    async with open_sticky_units(store, limits) as units:
        store.failing = True
        assert await units.read(keys(2)) == {}
        reads = store.reads
        units.note([(UnitKey("f", "user-1"), FIRST)])
        assert await units.read(keys(2)) == {}
        assert store.reads == reads
        assert total("contender_first_assignments_unreadable_total") == before + 4
        await wait_for(lambda: store.reads > reads)
        store.failing = False
        await wait_for(lambda: store.assignments == {UnitKey("f", "user-1"): FIRST})
        async with asyncio.timeout(30):
            while await units.read(keys(2)) != dict.fromkeys(keys(2)):
                await asyncio.sleep(0.001)


async def test_a_slow_store_is_not_waited_for(store, limits):
    answering = asyncio.Event()

    class Slow(InMemoryAssignments):
        async def read(self, asked):
            await answering.wait()
            return await super().read(asked)

    slow = Slow()
    async with open_sticky_units(slow, limits.model_copy(update={"assignment_timeout_s": 0.01})) as units:
        assert await units.read(keys(1)) == {}
        answering.set()
        async with asyncio.timeout(30):
            while await units.read(keys(1)) != dict.fromkeys(keys(1)):
                await asyncio.sleep(0.001)


async def test_a_slow_store_is_noticed_though_every_caller_leaves_before_the_timeout(limits):
    class Hanging(InMemoryAssignments):
        async def read(self, asked):
            self.reads += 1
            await asyncio.Event().wait()
            return []

    hanging = Hanging()
    async with open_sticky_units(hanging, limits.model_copy(update={"assignment_timeout_s": 0.05})) as units:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await units.read(keys(1))
        await wait_for(lambda: hanging.reads >= 2)  # the background's question: the store is known to be away
        assert await units.read(keys(1)) == {}


async def test_what_does_not_fit_and_what_is_never_written_is_counted_as_lost(store, limits):
    before = total("contender_first_assignments_lost_total")
    store.failing = True
    async with open_sticky_units(store, limits) as units:
        units.note([(key, FIRST) for key in keys(13)])
        assert total("contender_first_assignments_lost_total") == before + 3
        store.failing = False
        await wait_for(lambda: len(store.assignments) == 10)
        units.note([(key, FIRST) for key in keys(13)])
        await wait_for(lambda: len(store.assignments) == 13)
        store.failing = True
        units.note([(UnitKey("f", "user-1"), FIRST)])
    assert total("contender_first_assignments_lost_total") == before + 4


async def test_what_waits_is_written_when_the_router_ends(store, limits):
    async with open_sticky_units(store, limits) as units:
        units.note([(key, FIRST) for key in keys(10)])
    assert len(store.assignments) == 10


async def test_memory_is_bounded_and_a_forgotten_unit_is_written_again_without_harm(store, limits):
    async with open_sticky_units(store, limits) as units:
        for key in keys(30):
            units.note([(key, FIRST)])
            await wait_for(lambda key=key: key in store.assignments)
            assert len(units._known) + len(units._known_longer) <= 20
        units.note([(keys(1)[0], LATER)])
        await wait_for(lambda: store.written == 31)
    assert store.assignments == dict.fromkeys(keys(30), FIRST)


async def test_the_units_of_an_experiment_that_has_stopped_are_deleted_once(store, limits):
    async with open_sticky_units(store, limits) as units:
        units.note([(key, FIRST) for experiment in "ef" for key in keys(3, experiment)])
        await wait_for(lambda: len(store.assignments) == 6)
        store.failing = True
        with pytest.raises(AssignmentsUnavailableError):
            await units.forget(["e"])
        store.failing = False
        await units.forget(["e"])
        assert store.assignments == dict.fromkeys(keys(3, "f"), FIRST)
        assert await units.read(keys(1)) == {keys(1)[0]: None}
        store.failing = True
        await units.forget(["e"])
