"""The store of first assignments, which routers share: the variant that a unit of an experiment got first."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from services.ab_router.domain.assignment import FirstAssignment, UnitKey
from shared.errors import Unavailable

_SHARDS = 16
"""Hashes of an experiment's units, each with a hash tag of its own, so that a cluster shares the load.

More of them make more commands of each call.
"""
_ANSWER_S = 2.0
"""Longest for one answer; the client then closes the connection. Callers of a read wait for less."""
_KEEP_FIRST = """
local are_new = {}
for i = 2, #ARGV, 2 do
  are_new[#are_new + 1] = redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return are_new
"""
"""One command for a whole hash: commands for single units take the router's processor four times as long."""
_Command = tuple[str | bytes | int, ...]
_FAILURES = (RedisError, RedisClusterException, OSError)
_UNREADABLE = FirstAssignment("", 0, 0.0)
"""Stands for a value that this release can't read: it names no variant."""


class AssignmentsUnavailableError(Unavailable):
    """First assignments can't be read or written at the moment."""


class AssignmentStore(Protocol):
    """First assignments by experiment and unit. Every call raises AssignmentsUnavailableError on failure."""

    async def read(self, keys: Sequence[UnitKey]) -> list[FirstAssignment | None]:
        """The first assignment of each unit, in order; None for a new one."""
        ...

    async def write(self, assignments: Mapping[UnitKey, FirstAssignment]) -> list[bool]:
        """Keep the assignments of new units, and return for each one, in order, whether its unit was new."""
        ...

    async def forget(self, experiment: str) -> None:
        """Delete the assignments of an experiment."""
        ...


class RedisAssignments:
    """First assignments in Redis or Valkey: hashes of an experiment, whose fields are digests of units.

    A unit takes about 70 bytes. An experiment's hashes expire when no new unit has come for a while.

    Args:
        client: answers bytes.
        ttl_s: how long a hash is kept after its last new unit.
    """

    def __init__(self, client: "Redis | RedisCluster", *, ttl_s: int) -> None:
        self._redis = client
        self._ttl_s = ttl_s

    @classmethod
    def connect(cls, url: str, *, cluster: bool, ttl_s: int) -> "RedisAssignments":
        """Assignments at an address, or in the cluster that it is a node of. It is reached for with the first call."""
        options: dict[str, Any] = {
            "socket_timeout": _ANSWER_S,
            "socket_connect_timeout": _ANSWER_S,
            "retry": Retry(NoBackoff(), 0),
        }
        client = RedisCluster.from_url(url, **options) if cluster else Redis.from_url(url, **options)
        return cls(client, ttl_s=ttl_s)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def read(self, keys: Sequence[UnitKey]) -> list[FirstAssignment | None]:
        """The first assignment of each unit: one HMGET for each hash, all in one pipeline."""
        addresses = [_address(key) for key in keys]
        shards: dict[str, list[bytes]] = {}
        for shard, field in addresses:
            shards.setdefault(shard, []).append(field)
        values = await self._by_shard({shard: ("HMGET", shard, *fields) for shard, fields in shards.items()})
        return [_decoded(next(values[shard])) for shard, _ in addresses]

    async def write(self, assignments: Mapping[UnitKey, FirstAssignment]) -> list[bool]:
        """Keep the assignments of new units; the others stay as they are."""
        shards: dict[str, list[bytes]] = {}
        addresses = [_address(key) for key in assignments]
        for (shard, field), first in zip(addresses, assignments.values(), strict=True):
            shards.setdefault(shard, []).extend((field, msgspec.msgpack.encode(first)))
        replies = await self._by_shard(
            {shard: ("EVAL", _KEEP_FIRST, 1, shard, self._ttl_s, *items) for shard, items in shards.items()}
        )
        return [bool(next(replies[shard])) for shard, _ in addresses]

    async def forget(self, experiment: str) -> None:
        """Delete the hashes of an experiment."""
        await self._call([("UNLINK", _shard(experiment, number)) for number in range(_SHARDS)])

    async def _by_shard(self, commands: Mapping[str, _Command]) -> dict[str, Iterator[Any]]:
        """The entries of each command's reply, by shard."""
        replies = await self._call(list(commands.values()))
        return {shard: iter(reply) for shard, reply in zip(commands, replies, strict=True)}

    async def _call(self, commands: Sequence[_Command]) -> list[Any]:
        """Send commands, each for one hash, together, and return their replies."""
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute()
        except _FAILURES as error:
            raise _away(error) from error
        return replies


class InMemoryAssignments:
    """First assignments in a dict, for tests; `failing` stands for an outage."""

    def __init__(self) -> None:
        self.assignments: dict[UnitKey, FirstAssignment] = {}
        self.failing = False
        self.reads = 0
        self.written = 0

    async def read(self, keys: Sequence[UnitKey]) -> list[FirstAssignment | None]:
        """The first assignment of each unit."""
        self.reads += 1
        self._check()
        return [self.assignments.get(key) for key in keys]

    async def write(self, assignments: Mapping[UnitKey, FirstAssignment]) -> list[bool]:
        """Keep the assignments of new units."""
        self._check()
        self.written += len(assignments)
        are_new = [key not in self.assignments for key in assignments]
        self.assignments = {**assignments, **self.assignments}
        return are_new

    async def forget(self, experiment: str) -> None:
        """Delete the assignments of an experiment."""
        self._check()
        self.assignments = {key: first for key, first in self.assignments.items() if key.experiment != experiment}

    def _check(self) -> None:
        if self.failing:
            raise AssignmentsUnavailableError("first assignments are away")


_digest = partial(blake2b, digest_size=16)


def _address(key: UnitKey) -> tuple[str, bytes]:
    """The hash and the field of a unit. Digests keep long units short, and names of people out of Redis."""
    field = _digest(key.unit.encode("utf-8", "surrogatepass")).digest()
    return _shard(key.experiment, field[0] % _SHARDS), field


def _shard(experiment: str, number: int) -> str:
    return f"assignments:{{{experiment}/{number}}}"


def _decoded(value: bytes | None) -> FirstAssignment | None:
    if value is None:
        return None
    try:
        return msgspec.msgpack.decode(value, type=FirstAssignment)
    except msgspec.DecodeError:
        return _UNREADABLE


def _away(error: Exception) -> AssignmentsUnavailableError:
    return AssignmentsUnavailableError(f"first assignments can't be read or written ({type(error).__name__})")
