"""One contract for the stores of answers: in memory, in Valkey, and in a cluster of Valkey."""

import asyncio
from collections.abc import AsyncIterator
from secrets import token_bytes

import pytest

from embedded.ports import free_ports
from embedded.valkey import Valkey
from services.ab_router.stored_answers import (
    AnswerStore,
    AnswerStoreError,
    AnswerStoreTimeoutError,
    InMemoryAnswerStore,
    open_redis_store,
)

MARKER, OTHER, ENTRY = b"?\x00\xff marker", b"? another", b"=\r\n\x00 entry"
LONG_S = 60.0


@pytest.fixture(params=["memory", "valkey", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AnswerStore]:
    if request.param == "memory":
        yield InMemoryAnswerStore()
        return
    is_cluster = request.param == "cluster"
    url = request.getfixturevalue("valkey_cluster").url if is_cluster else request.getfixturevalue("valkey")
    async with open_redis_store(url, 5.0, is_cluster=is_cluster) as store:
        yield store


@pytest.fixture
def key() -> bytes:
    return token_bytes(16)


async def test_a_key_is_claimed_once(store: AnswerStore, key: bytes):
    claims = await asyncio.gather(*(store.claim(key, b"%d" % number, LONG_S) for number in range(20)))
    assert claims.count(None) == 1
    assert set(claims) - {None} == {b"%d" % claims.index(None)}


async def test_a_marker_is_replaced_by_an_entry_which_stays(store: AnswerStore, key: bytes):
    assert await store.claim(key, MARKER, LONG_S) is None
    assert await store.replace(key, MARKER, ENTRY, LONG_S)
    assert await store.claim(key, OTHER, LONG_S) == ENTRY
    assert not await store.replace(key, OTHER, b"= other", LONG_S)
    await store.remove(key, OTHER)
    assert await store.claim(key, OTHER, LONG_S) == ENTRY


async def test_a_marker_that_was_replaced_by_the_same_entry_already_is_replaced(store: AnswerStore, key: bytes):
    """The client repeats a call whose answer was lost."""
    await store.claim(key, MARKER, LONG_S)
    assert [await store.replace(key, MARKER, ENTRY, LONG_S) for _ in range(2)] == [True, True]
    assert not await store.replace(key, MARKER, b"= other", LONG_S)


async def test_a_removed_marker_leaves_room_for_another(store: AnswerStore, key: bytes):
    await store.claim(key, MARKER, LONG_S)
    await store.remove(key, OTHER)
    assert await store.claim(key, OTHER, LONG_S) == MARKER
    await store.remove(key, MARKER)
    assert await store.claim(key, OTHER, LONG_S) is None


async def test_markers_and_entries_expire(store: AnswerStore, key: bytes):
    async def expired(marker: bytes) -> None:
        async with asyncio.timeout(10):
            while await store.claim(key, marker, LONG_S) is not None:
                await asyncio.sleep(0.01)

    await store.claim(key, MARKER, 0.05)
    await expired(OTHER)
    assert not await store.replace(key, MARKER, ENTRY, LONG_S)
    assert await store.replace(key, OTHER, ENTRY, 0.05)
    await expired(MARKER)


async def test_a_store_that_is_away_or_frozen_says_so_in_time(tmp_path):
    server = Valkey(tmp_path, free_ports(1)[0])
    async with open_redis_store(server.url, 0.2) as store:
        with pytest.raises(AnswerStoreError):
            await store.claim(b"a", MARKER, LONG_S)
        server.start()
        try:
            server.wait_ready(60)
            assert await store.claim(b"a", MARKER, LONG_S) is None
            server.pause()
            for ask in (store.claim(b"b", MARKER, LONG_S), store.replace(b"a", MARKER, ENTRY, LONG_S)):
                began = asyncio.get_running_loop().time()
                with pytest.raises(AnswerStoreTimeoutError):
                    await ask
                assert asyncio.get_running_loop().time() - began < 0.5
            server.resume()
            assert await store.claim(b"c", MARKER, LONG_S) is None
        finally:
            server.kill()
