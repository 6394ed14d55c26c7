"""One contract for every store of first assignments, and what callers notice of a real one that is frozen or away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from time import perf_counter

import pytest
from redis.asyncio import Redis

from embedded.ports import free_ports
from embedded.valkey import Valkey
from services.ab_router.domain.assignment import FirstAssignment, UnitKey
from services.ab_router.settings import RouterSettings
from services.ab_router.sticky import open_sticky_units
from services.ab_router.stored_assignments import (
    AssignmentStore,
    AssignmentsUnavailableError,
    InMemoryAssignments,
    RedisAssignments,
)

TTL_S = 86_400
FIRST = FirstAssignment("new", 1, 0.1)
LATER = FirstAssignment("old", 2, 0.5)
ODD_UNITS = ["user-1", " ", "\u00e4\U0001f6eb", "x" * 1000, "\ud800", "user-1\n"]


@pytest.fixture(params=["memory", "valkey", "cluster"])
async def store(request) -> AsyncIterator[AssignmentStore]:
    if request.param == "memory":
        yield InMemoryAssignments()
        return
    is_cluster = request.param == "cluster"
    url = request.getfixturevalue("valkey_cluster").url if is_cluster else request.getfixturevalue("valkey")
    redis = RedisAssignments.connect(url, cluster=is_cluster, ttl_s=TTL_S)
    for experiment in ("e", "f"):
        await redis.forget(experiment)
    yield redis
    await redis.aclose()


def keys(experiment: str = "e") -> list[UnitKey]:
    return [UnitKey(experiment, unit) for unit in ODD_UNITS]


async def test_the_first_assignment_of_a_unit_stays(store):
    assert await store.read(keys()) == [None] * len(ODD_UNITS)
    assert await store.write(dict.fromkeys(keys(), FIRST)) == [True] * len(ODD_UNITS)
    fresh = UnitKey("e", "fresh")
    assert await store.write({keys()[0]: LATER, fresh: LATER}) == [False, True]
    assert await store.read([fresh, *keys(), UnitKey("e", "unknown")]) == [LATER, *[FIRST] * len(ODD_UNITS), None]


async def test_experiments_share_nothing_and_one_is_forgotten_alone(store):
    await store.write({**dict.fromkeys(keys("e"), FIRST), **dict.fromkeys(keys("f"), LATER)})
    both = [keys("f")[0], keys("e")[0]]
    assert await store.read(both) == [LATER, FIRST]
    await store.forget("e")
    assert await store.read(both) == [LATER, None]
    await store.forget("e")


async def test_many_units_are_read_in_their_order_in_one_call(store):
    units = [UnitKey("e", f"user-{number}") for number in range(1_000)]
    written = {key: FirstAssignment("new", number, number / 1_000) for number, key in enumerate(units)}
    assert await store.write(written) == [True] * 1_000
    shuffled = sorted(units, key=hash)
    assert await store.read([*shuffled, *shuffled[:3]]) == [written[key] for key in [*shuffled, *shuffled[:3]]]
    assert (await store.read([]), await store.write({})) == ([], [])


async def test_of_two_routers_that_write_at_once_one_is_first(store):
    key = UnitKey("e", "user-1")
    outcomes = await asyncio.gather(store.write({key: FIRST}), store.write({key: LATER}))
    assert sorted(outcomes) == [[False], [True]]
    assert await store.read([key]) == [FIRST if outcomes[0] == [True] else LATER]


async def test_a_unit_is_a_digest_in_one_of_16_hashes_that_expire(valkey):
    redis = RedisAssignments.connect(valkey, cluster=False, ttl_s=TTL_S)
    client = Redis.from_url(valkey)
    await redis.forget("e")
    units = [UnitKey("e", f"user-{number}") for number in range(2_000)]
    await redis.write(dict.fromkeys(units, FIRST))
    names = [name async for name in client.scan_iter("assignments:{e/*}")]
    assert len(names) == 16
    ttls = [await client.ttl(name) for name in names]
    assert all(TTL_S - 60 < ttl <= TTL_S for ttl in ttls)
    fields = [field for name in names for field in await client.hkeys(name)]
    assert {len(field) for field in fields} == {16}
    await client.hset(names[0], (await client.hkeys(names[0]))[0], b"of another release")
    torn = [first for first in await redis.read(units) if first != FIRST]
    assert [first.variant for first in torn] == [""]
    await redis.forget("e")
    assert [name async for name in client.scan_iter("assignments:{e/*}")] == []
    await client.aclose()
    await redis.aclose()


async def test_a_server_that_is_not_there_is_an_outage_without_addresses():
    redis = RedisAssignments.connect(f"redis://127.0.0.1:{free_ports(1)[0]}/0", cluster=False, ttl_s=TTL_S)
    key = UnitKey("e", "user-1")
    for call in (lambda: redis.read([key]), lambda: redis.write({key: FIRST}), lambda: redis.forget("e")):
        with pytest.raises(AssignmentsUnavailableError) as away:
            await call()
        assert "127.0.0.1" not in str(away.value)
    await redis.aclose()


# A real server that is frozen, and one that restarts


@pytest.fixture
def server(tmp_path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey", free_ports(1)[0])
    server.start()
    server.wait_ready(60)
    yield server
    server.resume()
    server.kill()


async def test_a_frozen_server_costs_the_first_call_its_deadline_and_the_others_nothing(server, tmp_path):
    settings = RouterSettings(data=tmp_path, assignment_timeout_s=0.2, breaker_rest_s=0.05)
    redis = RedisAssignments.connect(server.url, cluster=False, ttl_s=TTL_S)
    written, unread, new = UnitKey("e", "written"), UnitKey("e", "unread"), UnitKey("e", "new")
    await redis.write({written: FIRST, unread: FIRST})
    async with open_sticky_units(redis, settings) as units:
        assert await units.read([written]) == {written: FIRST}
        server.pause()
        began = perf_counter()
        assert await units.read([written, unread]) == {written: FIRST}
        assert 0.15 < perf_counter() - began < 1.0
        units.note([(new, LATER)])
        began = perf_counter()
        for _ in range(1_000):
            assert await units.read([written, unread, new]) == {written: FIRST, new: LATER}
        assert perf_counter() - began < 0.15
        server.resume()
        async with asyncio.timeout(30):
            while unread not in (known := await units.read([unread])):
                await asyncio.sleep(0.01)
            assert known == {unread: FIRST}
            while await redis.read([new]) != [LATER]:
                await asyncio.sleep(0.01)
    await redis.aclose()


async def test_what_is_assigned_while_the_server_is_away_is_written_when_it_is_back(server, tmp_path):
    settings = RouterSettings(data=tmp_path, breaker_rest_s=0.05)
    redis = RedisAssignments.connect(server.url, cluster=False, ttl_s=TTL_S)
    keys = [UnitKey("e", f"user-{number}") for number in range(3_000)]
    async with open_sticky_units(redis, settings) as units:
        server.kill()
        units.note([(key, FIRST) for key in keys])
        assert await units.read(keys) == dict.fromkeys(keys, FIRST)
        server.start()
        async with asyncio.timeout(60):
            while None in await _read(redis, keys):
                await asyncio.sleep(0.05)
    await redis.aclose()


async def _read(redis: RedisAssignments, keys: list[UnitKey]) -> list[FirstAssignment | None]:
    try:
        return await redis.read(keys)
    except AssignmentsUnavailableError:
        return [None]
