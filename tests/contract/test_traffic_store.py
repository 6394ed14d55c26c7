"""One contract for every place that counts of traffic are kept in."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster

from contender.contracts.ab_router import PredictionRow
from contender.contracts.inference_service import ModelVersion
from embedded.ports import free_ports
from embedded.valkey import Valkey
from services.ab_router.catalog import Model
from services.ab_router.stored_traffic import KEPT_S, Addition, InMemoryTraffic, RedisTraffic, TrafficStore
from services.ab_router.traffic import Traffic
from shared.clock import FixedClock
from shared.errors import Unavailable

HOUR = 472_222
ODD = ("value", "name\x1f", 'a "quoted" \U0001f600 \x00 value')
VERSION = ModelVersion(model="late", version="a", task="binary", inputs=[], registered_at=1.0)
LATE = Model("late", {"a": VERSION}, VERSION)


@pytest.fixture(params=["memory", "valkey", "valkey_cluster"])
async def store(request) -> AsyncIterator[TrafficStore]:
    if request.param == "memory":
        yield InMemoryTraffic()
        return
    if request.param == "valkey_cluster":
        url = request.getfixturevalue("valkey_cluster").url
        async with RedisCluster.from_url(url) as client:
            await client.flushall()
        async with RedisTraffic.connect(url, 5.0, cluster=True) as store:
            yield store
        return
    async with Redis.from_url(request.getfixturevalue("valkey").removesuffix("/0") + "/7") as client:
        await client.flushdb()
        yield RedisTraffic(client, 5.0)


def addition(number: int = 1, router: str = "one", hour: int = HOUR, model: str = "late", **counts: int) -> Addition:
    return Addition(model, hour, router, number, {(kind,): rows for kind, rows in counts.items()})


async def test_nothing_is_there_at_first(store: TrafficStore):
    assert await store.read("late", [HOUR]) == {}


async def test_counts_of_several_routers_and_additions_add_up_by_model_and_hour(store: TrafficStore):
    await store.add(addition(1, rows=3, refused=1))
    await store.add(addition(2, rows=4))
    await store.add(addition(1, "two", rows=10))
    await store.add(addition(3, hour=HOUR + 1, rows=100))
    await store.add(addition(4, model="delay", rows=1000))
    assert await store.read("late", [HOUR - 1, HOUR, HOUR + 1]) == {
        HOUR: {("rows",): 17, ("refused",): 1},
        HOUR + 1: {("rows",): 100},
    }
    assert await store.read("delay", [HOUR]) == {HOUR: {("rows",): 1000}}


async def test_an_addition_that_is_sent_again_counts_once(store: TrafficStore):
    for number in (1, 1, 2, 1, 2):
        await store.add(addition(number, rows=5))
    assert await store.read("late", [HOUR]) == {HOUR: {("rows",): 10}}


async def test_any_name_is_read_as_it_was_counted(store: TrafficStore):
    await store.add(Addition("late", HOUR, "one", 1, {ODD: 2, ("value", "name"): 3}))
    assert await store.read("late", [HOUR]) == {HOUR: {ODD: 2, ("value", "name"): 3}}


async def test_a_thousand_counts_of_one_addition_are_added_together(store: TrafficStore):
    counts = {("sent", f"column {number}"): number + 1 for number in range(1_000)}
    await store.add(Addition("late", HOUR, "one", 1, counts))
    assert await store.read("late", [HOUR]) == {HOUR: counts}


async def test_hours_expire_an_hour_after_the_day_that_they_belong_to(valkey: str):
    async with Redis.from_url(valkey.removesuffix("/0") + "/7") as client:
        await client.flushdb()
        await RedisTraffic(client, 5.0).add(addition(rows=1))
        (key,) = await client.keys("*")
        assert key == b"traffic:{late}:472222"
        assert KEPT_S - 60 < await client.ttl(key) <= KEPT_S == 25 * 3600


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


async def test_an_addition_whose_answer_never_came_counts_once(own_valkey: Valkey):
    """The frozen server has the additions in its socket, and does them when it goes on."""
    async with RedisTraffic.connect(own_valkey.url, 0.3) as store:
        traffic = Traffic(store, FixedClock(HOUR * 3600.0))
        await traffic.flush()
        traffic.note(LATE, [PredictionRow("u")], [None])
        await traffic.flush()
        os.kill(own_valkey.pid, signal.SIGSTOP)
        try:
            traffic.note(LATE, [PredictionRow("u")] * 10, [None] * 10)
            for _ in range(3):
                async with asyncio.timeout(60):
                    with pytest.raises(Unavailable):
                        await traffic.flush()
            traffic.note(LATE, [PredictionRow("u")] * 100, [None] * 100)
        finally:
            os.kill(own_valkey.pid, signal.SIGCONT)
        async with asyncio.timeout(60):
            while True:
                try:
                    day = await traffic.day("late")
                    break
                except Unavailable:  # it has just gone on
                    await asyncio.sleep(0.05)
        assert day.rows == 111


@pytest.mark.parametrize("cluster", [False, True])
async def test_an_unreachable_server_is_an_error_that_can_be_handled(unused_tcp_port, cluster):
    async with RedisTraffic.connect(f"redis://127.0.0.1:{unused_tcp_port}/0", 1.0, cluster=cluster) as store:
        with pytest.raises(Unavailable, match="can't be reached"):
            await store.add(addition(rows=1))
        with pytest.raises(Unavailable, match="can't be reached"):
            await store.read("late", [HOUR])
