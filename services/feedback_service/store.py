"""The store of snapshots: workers publish the state of experiments there, and readers find it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar, cast

import msgspec
from redis import RedisError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    DaySnapshot,
    ExperimentUpdate,
    GroupHeader,
    PartitionSnapshot,
    PartitionStatus,
    snapshot_groups,
)
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.metrics import SNAPSHOT_BYTES

DEADLINE_S = 2.0
"""How long a call to Redis may take: a page is answered, or refused, within three seconds."""

_ANSWER_S = 1.5  # for one answer; the client then closes the connection, which a cancelled call leaves open

ShapeT = TypeVar("ShapeT")


class SnapshotStore(Protocol):
    """The newest snapshot of each experiment and partition, and the status of each partition.

    Every call raises ResultsUnavailable when the store can't be reached.
    """

    async def write(self, update: ExperimentUpdate) -> None:
        """Bring an experiment's snapshot of one partition up to date; readers see all of an update or nothing."""
        ...

    async def write_status(self, status: PartitionStatus, last: PartitionStatus | None = None) -> bool:
        """Replace a partition's status, and return whether it was `last` (None: there was none)."""
        ...

    async def read(self, experiment: str) -> list[PartitionSnapshot]:
        """All partitions that have a status, by number, each with its groups of one experiment."""
        ...

    async def experiments(self) -> list[str]:
        """The names of the experiments that have a snapshot, sorted."""
        ...

    async def ping(self) -> None:
        """Return if the store answers."""
        ...


class RedisSnapshots:
    """Snapshots in Redis or Valkey: a hash for each experiment, in which every partition has its own fields.

    The keys share a hash tag, so that a cluster reads them in one call.

    Args:
        redis: a client that does not decode responses.
        partitions: number of partitions.
        state: the name of the counts.
    """

    def __init__(self, redis: "Redis", *, partitions: int, state: str = "1") -> None:
        self._redis = redis
        self._prefix = f"{{feedback}}:counts-{state}"
        self._statuses = [f"{self._prefix}:status:{number}" for number in range(partitions)]

    @classmethod
    def connect(cls, url: str, *, partitions: int, state: str = "1") -> "RedisSnapshots":
        """Snapshots at an address. A call gives up after DEADLINE_S and is not tried again."""
        redis = Redis.from_url(
            url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S, retry=Retry(NoBackoff(), 0)
        )
        return cls(redis, partitions=partitions, state=state)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def write(self, update: ExperimentUpdate) -> None:
        """Bring an experiment's snapshot of one partition up to date, in one transaction."""
        key = self._key(update.experiment)
        encoded = {name: msgspec.msgpack.encode(part) for name, part in update.fields.items()}
        encoded[str(update.partition)] = msgspec.msgpack.encode(update.headers)
        async with _deadline():
            gone = set(update.gone)
            if update.complete:
                stored = {name.decode() for name in cast("list[bytes]", await self._redis.hkeys(key))}
                gone |= {name for name in stored if update.is_own(name)} - set(update.fields)
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, items=[part for pair in encoded.items() for part in pair])
                if gone:
                    pipeline.hdel(key, *sorted(gone))
                pipeline.sadd(f"{self._prefix}:experiments", update.experiment)
                await pipeline.execute()
        SNAPSHOT_BYTES.inc(sum(map(len, encoded.values())))

    async def write_status(self, status: PartitionStatus, last: PartitionStatus | None = None) -> bool:
        """Replace a partition's status, and return whether it was `last` (None: there was none)."""
        value = msgspec.msgpack.encode(status)
        async with _deadline():
            replaced = await self._redis.set(f"{self._prefix}:status:{status.partition}", value, get=True)
        SNAPSHOT_BYTES.inc(len(value))
        return bool(replaced == encoded_status(last))

    async def read(self, experiment: str) -> list[PartitionSnapshot]:
        """All partitions that have a status, by number, each with its groups of one experiment."""
        async with _deadline(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.mget(self._statuses)
            pipeline.hgetall(self._key(experiment))
            statuses, fields = await pipeline.execute()
        return decoded_snapshots(statuses, {name.decode(): value for name, value in fields.items()})

    async def experiments(self) -> list[str]:
        """The names of the experiments that have a snapshot, sorted."""
        async with _deadline():
            names = cast("set[bytes]", await self._redis.smembers(f"{self._prefix}:experiments"))
        return sorted(name.decode() for name in names)

    async def ping(self) -> None:
        """Return if Redis answers."""
        async with _deadline():
            await self._redis.echo("ping")

    def _key(self, experiment: str) -> str:
        return f"{self._prefix}:experiment:{experiment}"


class InMemorySnapshots:
    """Snapshots in dictionaries."""

    def __init__(self) -> None:
        self._statuses: dict[int, bytes] = {}
        self._fields: dict[str, dict[str, bytes]] = {}

    async def write(self, update: ExperimentUpdate) -> None:
        """Bring an experiment's snapshot of one partition up to date."""
        fields = self._fields.setdefault(update.experiment, {})
        for name in [name for name in fields if name in update.gone or (update.complete and update.is_own(name))]:
            del fields[name]
        fields.update({name: msgspec.msgpack.encode(part) for name, part in update.fields.items()})
        fields[str(update.partition)] = msgspec.msgpack.encode(update.headers)

    async def write_status(self, status: PartitionStatus, last: PartitionStatus | None = None) -> bool:
        """Replace a partition's status, and return whether it was `last` (None: there was none)."""
        replaced = self._statuses.get(status.partition)
        self._statuses[status.partition] = msgspec.msgpack.encode(status)
        return replaced == encoded_status(last)

    async def read(self, experiment: str) -> list[PartitionSnapshot]:
        """All partitions that have a status, by number, each with its groups of one experiment."""
        statuses = [self._statuses[number] for number in sorted(self._statuses)]
        return decoded_snapshots(statuses, self._fields.get(experiment, {}))

    async def experiments(self) -> list[str]:
        """The names of the experiments that have a snapshot, sorted."""
        return sorted(self._fields)

    async def ping(self) -> None:
        """Return: memory answers."""


@asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    """Turn every failure of a call to Redis into the store's own error, within the deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        name = type(error).__name__
        raise ResultsUnavailable(f"the store of the results does not answer ({name}); ask again") from error


def encoded_status(status: PartitionStatus | None) -> bytes | None:
    """A partition's status as a store keeps it."""
    return None if status is None else msgspec.msgpack.encode(status)


def decoded_snapshots(statuses: Sequence[bytes | None], fields: dict[str, bytes]) -> list[PartitionSnapshot]:
    """Snapshots from what a store keeps: the partitions' statuses in their order, and one experiment's fields."""
    cohorts = {name: _decode(value, CohortSnapshot) for name, value in fields.items() if ":" in name}
    days = {name: _decode(value, DaySnapshot) for name, value in fields.items() if "/" in name}
    snapshots = []
    for value in statuses:
        if value is None:
            continue
        status = _decode(value, PartitionStatus)
        headers = fields.get(str(status.partition))
        groups = snapshot_groups(_decode(headers, list[GroupHeader]), cohorts, days) if headers else []
        snapshots.append(PartitionSnapshot(status, groups))
    return snapshots


def _decode(value: bytes, shape: type[ShapeT]) -> ShapeT:
    return msgspec.msgpack.decode(value, type=shape)
