"""One contract for the stores of tiles: in memory, and in Valkey."""

import struct
from collections.abc import AsyncIterator

import numpy as np
import pytest
from redis.asyncio import Redis

from services.feature_service.domain.rings import Ring
from services.feature_service.domain.tallies import Cell, Tally, tally
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.protocol import FeatureStore, FramePosition, StoreUnavailableError
from services.feature_service.store.redis import RedisStore
from shared.events import EntityEvent
from shared.features.aggregations import mean
from shared.features.definitions import Entity, EventSource, FeatureView

VIEW = FeatureView(
    "speeds",
    Entity("road", "road"),
    EventSource("cars", {"road": str, "speed": float}),
    [mean("speed", "1m")],
    hop="10s",
    lateness="20s",
)
RING = Ring.of(VIEW, "speed")


@pytest.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[FeatureStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("valkey").rsplit("/", 1)[0] + "/3"
    async with Redis.from_url(url) as client:
        await client.flushdb()
        yield RedisStore(client, seen_ttl_s=60)


def car(time: float, speed: float, road: str = "a") -> EntityEvent:
    return EntityEvent("cars", time, {"road": road, "speed": speed})


async def merge(store: FeatureStore, offset: int, *events: EntityEvent, partition: int = 0) -> int:
    tallies = tally(RING, partition, offset, events)
    return await store.merge(RING, {entity: [one] for entity, one in tallies.items()})


async def cells(store: FeatureStore, road: str = "a") -> dict[float, Cell]:
    (held,) = await store.read([RING.key(road)])
    assert held is not None
    rows = np.frombuffer(held[: RING.cells_bytes]).reshape(RING.slots, 8)
    return {row[0]: Cell(*row.tolist()) for row in rows if row[1]}


async def test_nothing_is_read_of_an_entity_that_was_never_seen(store: FeatureStore):
    assert await store.read([RING.key("a"), RING.key("b")]) == [None, None]
    assert await store.read([]) == []


async def test_events_of_one_tile_are_merged_across_frames_and_partitions(store: FeatureStore):
    await merge(store, 0, car(1, 10.0), car(2, 20.0))
    await merge(store, 1, car(9, 60.0))
    await merge(store, 0, car(5, 30.0), partition=3)
    assert await cells(store) == {0.0: Cell(0, 4, 120, 1400, 10, 60, 9, 60)}


async def test_a_frame_that_is_merged_again_changes_nothing(store: FeatureStore):
    await merge(store, 4, car(1, 10.0))
    await merge(store, 5, car(1, 11.0))
    before = await store.read([RING.key("a")])
    for offset in (4, 5, 0):
        await merge(store, offset, car(1, 12.0))
    assert await store.read([RING.key("a")]) == before


async def test_several_frames_of_one_call_are_merged_in_order_and_once(store: FeatureStore):
    both = [tally(RING, 0, offset, [car(offset, 1.0)])["a"] for offset in (0, 1)]
    await store.merge(RING, {"a": both[:1]})
    await store.merge(RING, {"a": both})
    assert (await cells(store))[0.0].events == 2


async def test_a_newer_tile_takes_the_slot_and_an_older_one_is_late(store: FeatureStore):
    lap = RING.slots * RING.hop_s
    await merge(store, 0, car(1, 10.0))
    assert await merge(store, 1, car(1 + lap, 20.0)) == 0
    assert await merge(store, 2, car(2, 30.0), car(3, 30.0), car(lap, 40.0)) == 2
    assert await cells(store) == {float(RING.slots): Cell(RING.slots, 2, 60, 200, 20, 40, lap + 1, 20)}


async def test_of_values_with_the_same_time_the_greatest_is_the_last(store: FeatureStore):
    for offset, speed in enumerate((3.0, 7.0, 5.0)):
        await merge(store, offset, car(1, speed))
    assert (await cells(store))[0.0].last == 7.0


async def test_more_cells_than_one_call_takes_all_arrive(store: FeatureStore):
    events = [car(1, float(number), f"road-{number}") for number in range(1300)]
    await merge(store, 0, *events)
    held = await store.read([RING.key(f"road-{number}") for number in range(1300)])
    assert [struct.unpack_from("<8d", one or b"")[2] for one in held] == [float(number) for number in range(1300)]


async def test_a_frame_seen_at_another_place_is_a_duplicate_and_at_its_own_place_is_not(store: FeatureStore):
    first, again, elsewhere = FramePosition("f", 0, 5), FramePosition("f", 0, 9), FramePosition("f", 2, 1)
    assert await store.claim([first, again]) == [True, False]
    assert await store.claim([first, elsewhere]) == [True, False]
    assert await store.claim([]) == []


async def test_frames_without_an_id_are_never_duplicates(store: FeatureStore):
    assert await store.claim([FramePosition("", 0, 1), FramePosition("", 0, 2)]) == [True, True]


async def test_a_frame_is_applied_once_its_partition_has_come_as_far(store: FeatureStore):
    await store.claim([FramePosition("f", 1, 5)])
    assert not await store.is_applied("f")
    await store.note_applied({1: 4, 0: 9})
    assert not await store.is_applied("f")
    await store.note_applied({1: 5})
    await store.note_applied({1: 2})
    assert await store.is_applied("f")
    assert not await store.is_applied("unknown")


async def test_everything_written_is_on_disk_after_persist(store: FeatureStore):
    await merge(store, 0, car(1, 10.0))
    await store.persist()
    assert await store.is_ready()


async def test_a_store_that_is_not_there_says_so():
    async with Redis.from_url("redis://127.0.0.1:1/0", retry=None) as client:
        store = RedisStore(client, seen_ttl_s=60)
        assert not await store.is_ready()
        with pytest.raises(StoreUnavailableError):
            await store.read(["key"])
        with pytest.raises(StoreUnavailableError):
            await store.merge(RING, {"a": [Tally(0, 0, [Cell.of_one(0, 1, 1)])]})


async def test_a_server_without_an_append_only_file_is_told_apart_once(valkey: str):
    async with Redis.from_url(valkey) as client:
        store = RedisStore(client, seen_ttl_s=60)
        await client.config_set("appendonly", "no")
        try:
            await store.persist()
            await store.persist()
        finally:
            await client.config_set("appendonly", "yes")
