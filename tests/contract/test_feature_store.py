"""One contract for the stores of tiles: in memory, and in Valkey."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from statistics import variance

import numpy as np
import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from contender.features import distinct_count, last_n, mean, quantile, std
from contender.features.conditions import column
from contender.features.definitions import Entity, EventSource, FeatureView
from contender.features.layouts import Spread, Sums
from contender.features.layouts.bins import BINS, bin_of
from contender.features.layouts.distinct import hash_of
from services.feature_service.domain.rings import HISTORY, Ring, Rings
from services.feature_service.domain.tallies import Tally, tally
from services.feature_service.frames import FramePosition
from services.feature_service.store import redis as redis_store
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.protocol import HEALTH_TTL_S, FeatureStore, RingQuery, StoreUnavailableError
from services.feature_service.store.redis import RedisClusterStore, RedisStore
from shared.events import EntityEvent
from tests.valkey_cluster import ValkeyCluster

VIEW = FeatureView(
    "speeds",
    Entity("road", "road"),
    EventSource("cars", {"road": str, "speed": float}),
    [
        mean("speed", "1m"),
        mean("speed", "all", where=column("speed") > 0),
        mean("speed", "1m", where=column("speed") > 0, name="positive_1m"),
        std("speed", "1m", "all"),
        last_n("speed", 3, "1m", "all"),
        distinct_count("speed", "1m", "all", exact_to=16),
        quantile("speed", 0.5, "1m", "all"),
    ],
    hop="10s",
    lateness="20s",
)
RINGS = Rings.of({"speeds@1": VIEW})
RING = RINGS.ring("speeds@1", VIEW.aggregations[0])
LAYOUTS = ["sums", "spread", "last_n", "distinct", "bins"]


def ring_of(name: str) -> Ring:
    """A ring over windows and all time, by its layout."""
    return next(ring for ring in RINGS.all() if ring.layout.name == name and ring.has_base)


@pytest.fixture(params=["memory", "valkey", "valkey_cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[FeatureStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "valkey_cluster":
        async with RedisCluster.from_url(request.getfixturevalue("valkey_cluster").url) as client:
            await client.flushall()
            yield RedisClusterStore(client, seen_ttl_s=60)
        return
    url = request.getfixturevalue("valkey").rsplit("/", 1)[0] + "/3"
    async with Redis.from_url(url) as client:
        await client.flushdb()
        yield RedisStore(client, seen_ttl_s=60)


def car(time: float, speed: float, road: str = "a") -> EntityEvent:
    return EntityEvent("cars", time, {"road": road, "speed": speed})


async def merge(store: FeatureStore, offset: int, *events: EntityEvent, partition: int = 0, ring: Ring = RING) -> int:
    tallies = tally(ring, partition, offset, events)
    return await store.merge(ring, {entity: [tally] for entity, tally in tallies.items()})


async def packed(store: FeatureStore, ring: Ring, road: str = "a") -> bytes | None:
    ((stored,),) = (await store.read([RingQuery(ring, [road])])).rings
    return stored and stored.packed


async def rows(store: FeatureStore, ring: Ring, road: str = "a") -> np.ndarray:
    """The cells of an entity, the base last, as float64."""
    held = await packed(store, ring, road)
    assert held is not None
    return np.frombuffer(held[: ring.cells_bytes].ljust(ring.cells_bytes, b"\0")).reshape(ring.cells, -1)


async def cells(store: FeatureStore, ring: Ring = RING) -> dict[float, dict[str, float]]:
    """The cells of road a that hold events, by tile and field."""
    fields = {"sums": Sums.fields, "spread": Spread.fields}[ring.layout.name]
    return {row[0]: dict(zip(fields, row.tolist(), strict=True)) for row in await rows(store, ring) if row[1]}


def sums(*values: float) -> dict[str, float]:
    return dict(zip(Sums.fields, values, strict=True))


async def test_nothing_is_read_of_an_entity_that_was_never_seen(store: FeatureStore):
    assert (await store.read([RingQuery(RING, ["a", "b"]), RingQuery(RING, [])])).rings == [[None, None], []]
    assert (await store.read([])).rings == []


async def test_events_of_one_tile_are_merged_across_frames_and_partitions(store: FeatureStore):
    deviations = ring_of("spread")
    for ring in (RING, deviations):
        await merge(store, 0, car(1, 10.0), car(2, 20.0), ring=ring)
        await merge(store, 1, car(9, 60.0), ring=ring)
        await merge(store, 0, car(5, 30.0), partition=3, ring=ring)
    assert await cells(store) == {0.0: sums(0, 4, 9, 60, 1, 10, 120, 10, 60)}
    assert await cells(store, deviations) == {0.0: dict(zip(Spread.fields, (0, 4, 9, 1, 10, 80, 1400), strict=True))}


async def test_deviations_of_values_far_from_zero_merge_without_loss(store: FeatureStore):
    speeds = [1.7e12 + 0.25 * number for number in (3, 0, 8, -5, 1, 1, 6)]
    deviations = ring_of("spread")
    for offset, speed in enumerate(speeds):
        await merge(store, offset, car(9 - offset, speed), ring=deviations)
    held = (await cells(store, deviations))[0.0]
    assert held["excess"] == sum(speed - speeds[-1] for speed in speeds)
    assert held["spread"] / 6 == pytest.approx(float(variance(map(Fraction, speeds))), rel=1e-14)


async def test_a_frame_that_is_merged_again_changes_nothing(store: FeatureStore):
    await merge(store, 4, car(1, 10.0))
    await merge(store, 5, car(1, 11.0))
    before = await packed(store, RING)
    for offset in (4, 5, 0):
        await merge(store, offset, car(1, 12.0))
    assert await packed(store, RING) == before


async def test_several_frames_of_one_call_are_merged_in_order_and_once(store: FeatureStore):
    both = [tally(RING, 0, offset, [car(offset, 1.0)])["a"] for offset in (0, 1)]
    await store.merge(RING, {"a": both[:1]})
    await store.merge(RING, {"a": both})
    assert (await cells(store))[0.0]["count"] == 2


async def test_a_newer_tile_takes_the_slot_and_an_older_one_is_late(store: FeatureStore):
    lap = RING.slots * RING.hop_s
    await merge(store, 0, car(1, 10.0))
    assert await merge(store, 1, car(1 + lap, 20.0)) == 0
    assert await merge(store, 2, car(2, 30.0), car(3, 30.0), car(lap, 40.0)) == 2
    assert await cells(store) == {float(RING.slots): sums(RING.slots, 2, lap + 1, 20, lap, 40, 60, 20, 40)}


async def test_of_values_with_the_same_time_the_greatest_is_the_last_and_the_least_the_first(store: FeatureStore):
    deviations = ring_of("spread")
    for offset, speed in enumerate((5.0, 7.0, 3.0)):
        for ring in (RING, deviations):
            await merge(store, offset, car(1, speed), ring=ring)
    held = (await cells(store))[0.0]
    assert (held["first"], held["last"]) == (3.0, 7.0)
    assert (await cells(store, deviations))[0.0]["first"] == 3.0


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_tiles_that_are_replaced_or_late_go_into_the_base_of_all_time(store: FeatureStore, layout: str):
    ring = ring_of(layout)
    lap = ring.slots * ring.hop_s
    assert await merge(store, 0, car(1, 10.0), car(2, 20.0), ring=ring) == 0
    assert await merge(store, 1, car(1 + lap, 30.0), ring=ring) == 0
    assert await merge(store, 2, car(3, 40.0), ring=ring) == 1
    cells = await rows(store, ring)
    assert cells[-1][:3].tolist() == [0.0, 3.0, 3.0]
    assert cells[0][:3].tolist() == [float(ring.slots), 1.0, 1.0 + lap]


async def test_the_latest_values_stand_in_order_and_are_no_more_than_asked(store: FeatureStore):
    ring = ring_of("last_n")
    for offset, (time, speed) in enumerate([(5, 1.0), (2, 9.0), (7, 4.0), (7, 6.0), (1, 8.0)]):
        await merge(store, offset, car(time, speed), ring=ring)
    assert (await rows(store, ring))[0][:9].tolist() == [0.0, 5.0, 7.0, 7.0, 6.0, 7.0, 4.0, 5.0, 1.0]


async def test_of_different_values_the_least_hashes_are_held_once(store: FeatureStore):
    ring = ring_of("distinct")
    for offset in range(3):
        await merge(store, offset, *(car(1, float(number)) for number in range(1, 20)), ring=ring)
    held = (await rows(store, ring))[0]
    assert held[:3].tolist() == [0.0, 57.0, 1.0]
    assert held[3:].tolist() == sorted(hash_of(float(number)) for number in range(1, 20))[:16]


async def test_values_are_counted_by_bin(store: FeatureStore):
    ring = ring_of("bins")
    await merge(store, 0, car(1, 10.0), car(2, 10.0), ring=ring)
    await merge(store, 1, car(3, 10.0), car(4, 500.0), ring=ring)
    held = await packed(store, ring)
    counts = np.frombuffer(held[24 : 24 + 4 * BINS], dtype="<u4")
    assert {int(at): int(counts[at]) for at in counts.nonzero()[0]} == {
        int(bin_of(10.0)): 3,
        int(bin_of(500.0)): 1,
    }


async def test_history_has_a_mark_of_its_own(store: FeatureStore):
    await merge(store, 7, car(1, 10.0))
    history = replace(tally(RING, 0, 0, [car(2, 20.0)])["a"], partition=HISTORY)
    for _ in range(2):
        await store.merge(RING, {"a": [history]})
    assert (await cells(store))[0.0]["count"] == 2


async def test_only_the_newest_owner_of_a_partition_hands_rings_over(store: FeatureStore):
    assert await store.own(2, "first") == frozenset()
    assert await store.mark_filled(["speeds:a"], 2, "first") == "first"
    assert await store.own(2, "second") == {"speeds:a"}
    assert await store.mark_filled(["speeds:b"], 2, "first") == "second"
    assert await store.filled_rings([2]) == [frozenset({"speeds:a"})]
    assert await store.mark_filled(["speeds:b"], 2, "second") == "second"
    assert await store.mark_filled(["speeds:c"], 3, "second") == ""
    assert await store.filled_rings([1, 2, 3]) == [frozenset(), {"speeds:a", "speeds:b"}, frozenset()]


async def test_more_cells_than_one_call_takes_all_arrive(store: FeatureStore):
    events = [car(1, float(number), f"road-{number}") for number in range(1300)]
    await merge(store, 0, *events)
    ((*held,),) = (await store.read([RingQuery(RING, [f"road-{number}" for number in range(1300)])])).rings
    assert [struct.unpack_from(f"<{len(Sums.fields)}d", entry.packed)[6] for entry in held] == [
        float(number) for number in range(1300)
    ]


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
    for partition in (0, 1):
        await store.own(partition, "t")
    assert await store.note_applied(1, 4, "t") == "t"
    assert await store.note_applied(0, 9, "t") == "t"
    assert not await store.is_applied("f")
    assert await store.note_applied(1, 5, "t") == "t"
    assert await store.note_applied(1, 2, "t") == "t"
    assert await store.applied([0, 1, 2]) == [9, 5, None]
    assert await store.is_applied("f")
    assert not await store.is_applied("unknown")


async def test_a_former_owner_of_a_partition_notes_nothing(store: FeatureStore):
    await store.own(1, "former")
    await store.own(1, "newer")
    assert await store.note_applied(1, 5, "former") == "newer"
    assert await store.note_applied(2, 5, "former") == ""
    assert await store.applied([1]) == [None]


async def test_a_store_has_the_name_that_it_was_given_while_it_was_empty(store: FeatureStore):
    assert [await store.epoch(name) for name in ("first", "second")] == ["first", "first"]


async def test_tallies_of_one_entity_are_merged_in_calls_of_bounded_size(store: FeatureStore):
    ring = ring_of("bins")
    several = [tally(ring, 0, offset, [car(10.0 * offset, 1.0)])["a"] for offset in range(200)]
    assert await store.merge(ring, {"a": several}) == 0
    assert (await rows(store, ring))[:, 1].sum() == 200
    assert max(sum(map(len, some.values())) for some in redis_store._calls(ring, {"a": several})) < 50


async def test_what_workers_told_that_are_long_gone_is_dropped(store: FeatureStore):
    for number in range(50):
        await store.write_health(f"gone{number}", b"{}", at=1000.0)
    await store.write_health("here", b"before", at=1001.0)
    assert len(await store.read_health()) == 51
    await store.write_health("here", b"now", at=1000.0 + HEALTH_TTL_S)
    assert len(await store.read_health()) == 51
    await store.write_health("here", b"now", at=1001.0 + HEALTH_TTL_S)
    assert await store.read_health() == {"here": b"now"}


async def test_a_ring_is_forgotten_of_every_entity_and_no_other_ring(store: FeatureStore):
    cars = [car(1, 10.0, f"road-{number}") for number in range(100)]
    other = ring_of("last_n")
    await merge(store, 0, *cars)
    await merge(store, 0, *cars, ring=other)
    assert await store.forget(RING) == 100
    assert await packed(store, RING, "road-7") is None
    assert await store.forget(RING) == 0
    assert await store.entities([RING, other]) == {RING.name: 0, other.name: 100}


async def test_everything_written_is_on_disk_after_persist(store: FeatureStore):
    await merge(store, 0, car(1, 10.0))
    await store.persist()
    assert await store.is_ready()


async def test_a_store_that_is_not_there_says_so():
    async with Redis.from_url("redis://127.0.0.1:1/0", retry=None) as client:
        store = RedisStore(client, seen_ttl_s=60)
        assert not await store.is_ready()
        with pytest.raises(StoreUnavailableError):
            await store.read([RingQuery(RING, ["a"])])
        with pytest.raises(StoreUnavailableError):
            await store.merge(RING, {"a": [Tally(0, 0, [[0.0, 1.0, 1.0]])]})


async def test_a_cluster_that_is_not_there_says_so():
    nowhere = RedisCluster.from_url("redis://127.0.0.1:1/0", retry=Retry(NoBackoff(), 0))
    async with aclosing(nowhere) as client:
        store = RedisClusterStore(client, seen_ttl_s=60)
        assert not await store.is_ready()
        for asking in (store.read([RingQuery(RING, ["a"])]), store.claim([FramePosition("f", 0, 1)]), store.persist()):
            with pytest.raises(StoreUnavailableError):
                await asking


async def test_what_a_cluster_kept_outlives_a_primary(valkey_cluster: ValkeyCluster, monkeypatch):
    monkeypatch.setattr("services.feature_service.store.redis._PERSIST_MS", 1000)
    shops = [f"road-{number}" for number in range(50)]
    async with RedisCluster.from_url(valkey_cluster.url, socket_timeout=5) as client:
        store = RedisClusterStore(client, seen_ttl_s=60, replicas=1)
        await client.flushall()
        await merge(store, 0, *(car(1, float(number), shop) for number, shop in enumerate(shops)))
        for partition in range(20):
            await store.own(partition, "t")
            await store.note_applied(partition, 7, "t")
        await store.persist()
        ((*before,),) = (await store.read([RingQuery(RING, shops)])).rings
        assert None not in before
        failed = next(server for server in valkey_cluster.servers if server.port == client.get_primaries()[0].port)
        failed.kill()
        try:
            # Its replica takes over, and has none of its own: what is written now is in one place only.
            assert "0 replicas of Redis" in await eventually(store.persist, "CONTENDER_REDIS_REPLICAS asks for 1")
        finally:
            failed.start()
        await eventually(store.persist, "")
        assert (await store.read([RingQuery(RING, shops)])).rings == [before]
        assert await store.applied(range(20)) == [7] * 20
        assert await store.is_ready()


async def eventually(attempt: Callable[[], Awaitable[None]], reason: str) -> str:
    """Try until the store fails for that reason, which is returned; an empty one: until it does not fail."""
    async with asyncio.timeout(60):
        while True:
            try:
                await attempt()
            except StoreUnavailableError as error:
                if reason and reason in str(error):
                    return str(error)
            else:
                if not reason:
                    return ""
            await asyncio.sleep(0.1)


async def test_a_server_without_an_append_only_file_is_told_apart_once(valkey: str):
    async with Redis.from_url(valkey) as client:
        store = RedisStore(client, seen_ttl_s=60)
        before = await waits_for_disk(client)
        await client.config_set("appendonly", "no")
        try:
            await store.persist()
            await store.persist()
        finally:
            await client.config_set("appendonly", "yes")
        assert await waits_for_disk(client) == before + 1


async def test_a_server_that_is_full_for_a_moment_is_waited_for_again_later(valkey: str):
    async with Redis.from_url(valkey) as client:
        store = RedisStore(client, seen_ttl_s=60)
        await client.config_set("maxmemory", "1")
        try:
            with pytest.raises(StoreUnavailableError, match="maxmemory"):
                await store.persist()
        finally:
            await client.config_set("maxmemory", "0")
        before = await waits_for_disk(client)
        await store.persist()
        assert await waits_for_disk(client) == before + 1


async def waits_for_disk(client: Redis) -> int:
    """How often the server was asked whether writes are on its disk."""
    return (await client.info("commandstats")).get("cmdstat_waitaof", {"calls": 0})["calls"]


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_an_entity_takes_the_documented_memory(store: FeatureStore, layout: str):
    ring = next(ring for ring in RINGS.all() if ring.layout.name == layout and ring.has_windows)
    # Partitions 0 to 17: their marks and that of history are 19, and 16 are made at a time.
    tiles = {"sums": 72, "spread": 56, "last_n": 24 + 16 * 3, "distinct": 24 + 8 * 16, "bins": 1784}
    documented_tile = tiles[layout]
    documented = ring.cells * documented_tile + 32 * 8
    for turn in range(20 + ring.slots):  # more tiles than are held, and every partition
        await merge(store, turn, car(10 * turn, 1.0 + turn), partition=turn % 18, ring=ring)
    held = await packed(store, ring)
    assert held is not None
    assert len(held) == documented
    if isinstance(store, RedisStore):
        used = await store._redis.memory_usage(*redis_store.ring_keys(ring, ["a"]))
        # The key, its expiry and what the allocator rounds up to.
        assert documented < used < 1.3 * documented + 200
