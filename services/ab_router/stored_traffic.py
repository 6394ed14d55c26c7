"""The store of the counts of traffic: routers add to it, and each addition counts once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from services.ab_router.domain.traffic import CountKey, Counts
from shared.errors import Unavailable

KEPT_S = 25 * 3600
"""Seconds that an hour is kept after it was last added to: a day is read up to the hour in which it began."""
_ADD = """
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if last >= tonumber(ARGV[2]) then return 0 end
for at = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Addition:
    """Counts of a model in an hour; `number` grows with each addition of the same router, from 1."""

    model: str
    hour: int
    router: str
    number: int
    counts: Counts


class TrafficStore(Protocol):
    """Counts by model and hour. Every call raises Unavailable when the store can't be reached."""

    async def add(self, addition: Addition) -> None:
        """Add counts. An addition whose number is not above the router's last one in that hour adds nothing."""
        ...

    async def read(self, model: str, hours: Sequence[int]) -> dict[int, dict[CountKey, int]]:
        """The counts of a model in those of the hours that have any."""
        ...


class RedisTraffic:
    """Counts in Redis or Valkey: a hash for each model and hour, with the number of each router's last addition.

    A script adds all counts and the number, or nothing: an addition whose answer was lost may be sent again.

    Args:
        redis: a client, or one of a cluster, that does not decode responses.
        timeout_s: longest that a call may take.
    """

    def __init__(self, redis: Any, timeout_s: float) -> None:
        self._redis = redis
        self._timeout_s = timeout_s

    @classmethod
    def connect(cls, url: str, timeout_s: float, *, cluster: bool = False) -> Self:
        """Counts at an address, or in the cluster that it belongs to. A call is not tried again: the next flush is."""
        timeouts: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        if cluster:
            return cls(RedisCluster.from_url(url, **timeouts), timeout_s)
        return cls(Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts), timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()

    async def add(self, addition: Addition) -> None:
        """Add counts, once."""
        fields = [part for key, number in addition.counts.items() for part in (msgspec.json.encode(key), number)]
        router = f"router:{addition.router}"
        async with self._deadline():
            await self._redis.eval(
                _ADD, 1, _key(addition.model, addition.hour), router, addition.number, KEPT_S, *fields
            )

    async def read(self, model: str, hours: Sequence[int]) -> dict[int, dict[CountKey, int]]:
        """The counts of a model in those of the hours that have any."""
        async with self._deadline(), self._redis.pipeline(transaction=False) as pipeline:
            for hour in hours:
                pipeline.hgetall(_key(model, hour))
            answers = await pipeline.execute()
        return {hour: _decoded(fields) for hour, fields in zip(hours, answers, strict=True) if fields}

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            name = type(error).__name__
            raise Unavailable(f"the counts of traffic can't be reached at the moment ({name})") from error


class InMemoryTraffic:
    """Counts in dictionaries. While it is `down`, nothing is added or read."""

    def __init__(self) -> None:
        self._hours: dict[tuple[str, int], dict[CountKey, int]] = {}
        self._numbers: dict[tuple[str, int, str], int] = {}
        self.down = False

    async def add(self, addition: Addition) -> None:
        """Add counts, once."""
        self._check()
        router = addition.model, addition.hour, addition.router
        if addition.number <= self._numbers.get(router, 0):
            return
        self._numbers[router] = addition.number
        hour = self._hours.setdefault((addition.model, addition.hour), {})
        for key, number in addition.counts.items():
            hour[key] = hour.get(key, 0) + number

    async def read(self, model: str, hours: Sequence[int]) -> dict[int, dict[CountKey, int]]:
        """The counts of a model in those of the hours that have any."""
        self._check()
        return {hour: dict(self._hours[model, hour]) for hour in hours if (model, hour) in self._hours}

    def _check(self) -> None:
        if self.down:
            raise Unavailable("the counts of traffic can't be reached at the moment (down)")


def _key(model: str, hour: int) -> str:
    return f"traffic:{{{model}}}:{hour}"


def _decoded(fields: dict[bytes, bytes]) -> dict[CountKey, int]:
    return {
        msgspec.json.decode(field, type=CountKey): int(number)
        for field, number in fields.items()
        if field.startswith(b"[")
    }
