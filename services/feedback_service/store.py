"""Where workers publish the snapshots of their partitions and readers find them."""

from typing import Protocol

from redis.asyncio import Redis

from services.feedback_service.domain.snapshots import PartitionSnapshot, decode_snapshot, encode_snapshot


class SnapshotStore(Protocol):
    """The newest snapshot of each partition."""

    async def write(self, snapshot: PartitionSnapshot) -> None:
        """Put a snapshot in the place of the partition's last one."""
        ...

    async def read(self) -> list[PartitionSnapshot]:
        """The snapshots of all partitions that have one, by partition."""
        ...

    async def ping(self) -> None:
        """Return if the store can be reached."""
        ...


class RedisSnapshots:
    """Snapshots in Redis or Valkey, each one value that is always replaced whole.

    The keys share a hash tag, so that a cluster reads them in one call.

    Args:
        redis: a client that does not decode responses.
        partitions: how many partitions there are.
    """

    def __init__(self, redis: "Redis", *, partitions: int) -> None:
        self._redis = redis
        self._keys = [_key(partition) for partition in range(partitions)]

    async def write(self, snapshot: PartitionSnapshot) -> None:
        """Put a snapshot in the place of the partition's last one.

        Raises:
            redis.RedisError: Redis can't be reached or refuses.
        """
        await self._redis.set(_key(snapshot.partition), encode_snapshot(snapshot))

    async def read(self) -> list[PartitionSnapshot]:
        """The snapshots of all partitions that have one, by partition.

        Raises:
            redis.RedisError: Redis can't be reached or refuses.
        """
        values = await self._redis.mget(self._keys)
        return [decode_snapshot(value) for value in values if isinstance(value, bytes)]

    async def ping(self) -> None:
        """Return if Redis answers.

        Raises:
            redis.RedisError: it does not.
        """
        await self._redis.echo("ping")


class InMemorySnapshots:
    """Snapshots in a dictionary."""

    def __init__(self) -> None:
        self._values: dict[int, bytes] = {}

    async def write(self, snapshot: PartitionSnapshot) -> None:
        """Put a snapshot in the place of the partition's last one."""
        self._values[snapshot.partition] = encode_snapshot(snapshot)

    async def read(self) -> list[PartitionSnapshot]:
        """The snapshots of all partitions that have one, by partition."""
        return [decode_snapshot(self._values[partition]) for partition in sorted(self._values)]

    async def ping(self) -> None:
        """Return: memory is there."""


def _key(partition: int) -> str:
    return f"{{feedback}}:snapshot:{partition}"
