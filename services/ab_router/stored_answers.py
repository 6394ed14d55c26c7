"""Where answers are kept by request id: Redis or Valkey, and memory for tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import Protocol, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

_REPLACE = """
local kept = redis.call('GET', KEYS[1])
if kept == ARGV[2] then return 1 end
if kept ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_REMOVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class AnswerStoreError(RuntimeError):
    """The store can't be reached, or takes nothing."""


class AnswerStoreTimeoutError(AnswerStoreError):
    """The store has not answered in time."""


class AnswerStore(Protocol):
    """Entries by key, each for a while. Every method raises AnswerStoreError where the store can't be reached."""

    async def claim(self, key: bytes, marker: bytes, expires_s: float) -> bytes | None:
        """Keep a marker and return None, or return the entry or marker that is kept already."""
        ...

    async def replace(self, key: bytes, marker: bytes, entry: bytes, expires_s: float) -> bool:
        """Keep an entry in place of a marker; false where neither is kept. Done twice it changes nothing."""
        ...

    async def remove(self, key: bytes, marker: bytes) -> None:
        """Remove a marker; whatever else is kept stays."""
        ...


class RedisAnswerStore:
    """An AnswerStore in Redis or Valkey.

    Args:
        client: a client that answers bytes.
        timeout_s: longest a call may take, with all that the client does by itself.
    """

    def __init__(self, client: Redis, timeout_s: float) -> None:
        self._redis = client
        self._timeout_s = timeout_s

    async def claim(self, key: bytes, marker: bytes, expires_s: float) -> bytes | None:
        """Keep a marker and return None, or return what is kept: by SET NX GET, in one step."""
        async with self._guarded():
            return cast("bytes | None", await self._redis.set(key, marker, nx=True, get=True, px=_ms(expires_s)))

    async def replace(self, key: bytes, marker: bytes, entry: bytes, expires_s: float) -> bool:
        """Keep an entry in place of a marker; false where neither is kept."""
        async with self._guarded():
            return bool(await self._run(_REPLACE, key, marker, entry, _ms(expires_s)))

    async def remove(self, key: bytes, marker: bytes) -> None:
        """Remove a marker; whatever else is kept stays."""
        async with self._guarded():
            await self._run(_REMOVE, key, marker)

    async def _run(self, script: str, key: bytes, *arguments: bytes | int) -> object:
        """By EVAL: a server that has started anew does not know scripts by their digests."""
        return await cast(
            "Awaitable[object]", self._redis.eval(script, 1, cast("str", key), *cast("tuple[str, ...]", arguments))
        )

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.initialize()  # first calls side by side break the connections of a cluster's client
                yield
        except TimeoutError as error:
            raise AnswerStoreTimeoutError(f"Redis has not answered within {self._timeout_s:g} s") from error
        except (RedisError, RedisClusterException, OSError) as error:
            raise AnswerStoreError(f"Redis: {error}") from error


class InMemoryAnswerStore:
    """An AnswerStore in memory, for tests."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._entries: dict[bytes, tuple[bytes, float]] = {}

    async def claim(self, key: bytes, marker: bytes, expires_s: float) -> bytes | None:
        """Keep a marker and return None, or return what is kept."""
        kept = self._kept(key)
        if kept is None:
            self._entries[key] = marker, self._clock() + expires_s
        return kept

    async def replace(self, key: bytes, marker: bytes, entry: bytes, expires_s: float) -> bool:
        """Keep an entry in place of a marker; false where neither is kept."""
        if self._kept(key) not in (marker, entry):
            return False
        self._entries[key] = entry, self._clock() + expires_s
        return True

    async def remove(self, key: bytes, marker: bytes) -> None:
        """Remove a marker; whatever else is kept stays."""
        if self._kept(key) == marker:
            del self._entries[key]

    def _kept(self, key: bytes) -> bytes | None:
        entry, until = self._entries.get(key, (None, 0.0))
        return entry if self._clock() < until else None


@asynccontextmanager
async def open_redis_store(url: str, timeout_s: float, *, is_cluster: bool = False) -> AsyncIterator[RedisAnswerStore]:
    """The store at `url`, which need not answer yet."""
    retry = Retry(NoBackoff(), 1)  # a connection that the server has ended is replaced, without a pause
    client = (
        RedisCluster.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        if is_cluster
        else Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry)
    )
    async with aclosing(client):
        yield RedisAnswerStore(cast("Redis", client), timeout_s)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
