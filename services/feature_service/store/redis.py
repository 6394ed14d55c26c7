"""Tiles in Redis or Valkey: packed rings, merged by a script, read by one MGET."""

import asyncio
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import islice
from typing import Any, ParamSpec, TypeVar, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.commands.core import AsyncScript
from redis.crc import key_slot
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from contender.features.layouts import MOST_RING_BYTES
from services.feature_service.domain import Ring, StoredRing, Tally
from services.feature_service.frames import FramePosition
from services.feature_service.store.protocol import (
    HEALTH_TTL_S,
    RingQuery,
    RingsRead,
    StoreUnavailableError,
)
from shared.logs import logger

_CALL_BYTES = 40 * 1024
"""Bytes that one call of the script merges: a few milliseconds, in which Redis answers nobody else."""

_TAGS = 16
"""Hash tags that a view's entities are spread over, so that a cluster shares the load of a view."""

_EPOCH = "feature-epoch"
_HEALTH = "{feature-health}:told"
_HEALTH_AT = "{feature-health}:at"
_SCANNED = 5_000
_REMEMBERED_TAGS = 4096
_PERSIST_MS = 10_000
_PERSISTED = "persisted"
_NEVER_ON_DISK = ("unknown command", "appendonly is disabled")
"""Errors of WAITAOF on servers that can never confirm; others, such as a full memory, are temporary."""
_NOTE_APPLIED = """
local owner = redis.call('GET', KEYS[1]) or ''
if owner ~= ARGV[1] then return owner end
local held = redis.call('GET', KEYS[2])
if not held or tonumber(held) < tonumber(ARGV[2]) then redis.call('SET', KEYS[2], ARGV[2]) end
return owner
"""
_OWN = """
redis.call('SET', KEYS[1], ARGV[1])
return redis.call('SMEMBERS', KEYS[2])
"""
_MARK_FILLED = """
local owner = redis.call('GET', KEYS[1]) or ''
if owner ~= ARGV[1] then return owner end
for i = 2, #ARGV do redis.call('SADD', KEYS[2], ARGV[i]) end
return owner
"""
_FAILURES = (RedisError, RedisClusterException, OSError)
P = ParamSpec("P")
R = TypeVar("R")


def _guarded(method: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The method, with errors of Redis and its sockets raised as StoreUnavailableError."""

    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(*args, **kwargs)
        except _FAILURES as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    return call


class RedisStore:
    """A FeatureStore in Redis or Valkey.

    Args:
        client: a client that answers bytes.
        seen_ttl_s: how long a frame's id is remembered, to drop duplicates.
        replicas: how many replicas must have a write on disk, too, before it counts as persisted.
    """

    largest_item_bytes = 2 * MOST_RING_BYTES
    """Redis answers in one piece, and answers nobody else meanwhile."""

    def __init__(self, client: Redis, *, seen_ttl_s: int, replicas: int = 0) -> None:
        self._redis = client
        self._seen_ttl_s = seen_ttl_s
        self._replicas = replicas
        script = files("services.feature_service.store").joinpath("merge.lua").read_text()
        self._merge: AsyncScript = client.register_script(script)
        self._note_applied: AsyncScript = client.register_script(_NOTE_APPLIED)
        self._own: AsyncScript = client.register_script(_OWN)
        self._mark_filled: AsyncScript = client.register_script(_MARK_FILLED)
        self._can_persist = True
        self._log = logger(__name__)

    @_guarded
    async def claim(self, frames: Sequence[FramePosition]) -> list[bool]:
        """Whether each frame is to be applied: SET NX with the frame's position, which returns an earlier one."""
        named = [frame for frame in frames if frame.frame_id]
        pipeline = self._redis.pipeline(transaction=False)
        for frame in named:
            pipeline.set(_seen(frame.frame_id), _position(frame), nx=True, get=True, ex=self._seen_ttl_s)
        held = dict(zip(named, await pipeline.execute(), strict=True)) if named else {}
        return [held.get(frame) in (None, _position(frame)) for frame in frames]

    @_guarded
    async def merge(self, ring: Ring, tallies: Mapping[str, Sequence[Tally]]) -> int:
        """Merge tallies; calls follow one another, so that after a failure no later offset is marked."""
        late = 0
        for call in _calls(ring, tallies):
            packed = [b"".join(tally.pack() for tally in of_entity) for of_entity in call.values()]
            late += int(
                await self._merge(
                    keys=ring_keys(ring, call),
                    args=[
                        ring.layout.name,
                        ring.slots,
                        ring.layout.cell_bytes,
                        ring.layout.entries,
                        int(ring.has_base),
                        ring.ttl_s * 1000,
                        *packed,
                    ],
                )
            )
        return late if ring.has_windows else 0

    @_guarded
    async def note_applied(self, partition: int, offset: int, token: str) -> str:
        """Note how far a partition has been merged."""
        owner: bytes = await self._note_applied(keys=[_owner(partition), _applied(partition)], args=[token, offset])
        return owner.decode()

    @_guarded
    async def applied(self, partitions: Sequence[int]) -> list[int | None]:
        """How far each partition has been merged."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in partitions:
            pipeline.get(_applied(partition))
        return [None if offset is None else int(offset) for offset in await pipeline.execute()]

    @_guarded
    async def persist(self) -> None:
        """WAITAOF after a write on the same connection: that write follows all writes acknowledged before."""
        if not self._can_persist:
            return
        try:
            for local, replicas in await self._wait_for_disks():
                waited = f"within {_PERSIST_MS / 1000:.0f} s"
                if local < 1:
                    raise StoreUnavailableError(f"Redis has not written to its disk {waited}")
                if replicas < self._replicas:
                    wanted = f"CONTENDER_REDIS_REPLICAS asks for {self._replicas}"
                    raise StoreUnavailableError(f"{replicas} replicas of Redis have written to disk {waited}; {wanted}")
        except ResponseError as error:
            if not any(reason in str(error) for reason in _NEVER_ON_DISK):
                raise
            # Redis before 7.2, or one without an append-only file: its own settings decide what a crash loses.
            self._can_persist = False
            self._log.warning("the store can't confirm when writes are on disk", error=str(error))

    async def _wait_for_disks(self) -> list[tuple[int, int]]:
        """Each server's answer to WAITAOF: whether its disk has all writes (1 or 0), and how many replicas' do."""
        async with self._redis.client() as connection:
            await connection.set(_PERSISTED, b"")
            local, replicas = await connection.waitaof(1, self._replicas, _PERSIST_MS)
            return [(local, replicas)]

    @_guarded
    async def is_applied(self, frame_id: str) -> bool:
        """Whether the frame of that id has been merged."""
        position = cast("bytes | None", await self._redis.get(_seen(frame_id)))
        if position is None:
            return False
        partition, _, offset = position.partition(b"/")
        applied = cast("bytes | None", await self._redis.get(_applied(int(partition))))
        return applied is not None and int(applied) >= int(offset)

    @_guarded
    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        """The rings that queries ask for, by one MGET."""
        keys = [_EPOCH]
        for ring, entities in queries:
            keys += ring_keys(ring, entities)
        epoch, *values = await self._get(keys)
        stored = iter([None if value is None else StoredRing(value) for value in values])
        rings = [list(islice(stored, len(entities))) for _, entities in queries]
        return RingsRead((epoch or b"").decode(), rings)

    async def _get(self, keys: Sequence[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", await self._redis.mget(keys))

    @_guarded
    async def own(self, partition: int, token: str) -> frozenset[str]:
        """Become the owner of a partition."""
        names = await self._own(keys=[_owner(partition), _filled(partition)], args=[token])
        return frozenset(name.decode() for name in names)

    @_guarded
    async def mark_filled(self, names: Sequence[str], partition: int, token: str) -> str:
        """Note that the stream of a partition feeds rings."""
        owner: bytes = await self._mark_filled(keys=[_owner(partition), _filled(partition)], args=[token, *names])
        return owner.decode()

    @_guarded
    async def filled_rings(self, partitions: Sequence[int]) -> list[frozenset[str]]:
        """Per partition the names of the rings that are fed from it."""
        pipeline = self._redis.pipeline(transaction=False)
        for partition in partitions:
            pipeline.smembers(_filled(partition))
        return [frozenset(name.decode() for name in names) for names in await pipeline.execute()]

    @_guarded
    async def epoch(self, proposed: str) -> str:
        """The name that the store got when it was empty: SET NX, which returns an earlier name."""
        held = await self._redis.set(_EPOCH, proposed, nx=True, get=True)
        return proposed if held is None else cast("bytes", held).decode()

    @_guarded
    async def write_health(self, worker: str, health: bytes, at: float) -> None:
        """Replace a worker's health figures, and drop what is old."""
        await self._redis.zadd(_HEALTH_AT, {worker: at})  # first: an entry without a time would stay for good
        await self._redis.hset(_HEALTH, worker, cast("str", health))
        if old := await self._redis.zrangebyscore(_HEALTH_AT, "-inf", f"({at - HEALTH_TTL_S}"):
            await self._redis.hdel(_HEALTH, *old)
            await self._redis.zrem(_HEALTH_AT, *old)

    @_guarded
    async def read_health(self) -> dict[str, bytes]:
        """The last health figures of each worker."""
        reports = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(_HEALTH))
        return {worker.decode(): health for worker, health in reports.items()}

    @_guarded
    async def entities(self, rings: Sequence[Ring]) -> dict[str, int]:
        """The number of entities that have each ring, by one SCAN of all keys, which blocks nobody."""
        counts = {ring.name: 0 for ring in rings}
        async for key in self._redis.scan_iter("f:{*", count=_SCANNED):
            _, tag, digest, _ = key.decode("utf-8", "surrogatepass").split(":", 3)
            name = f"{tag[1:].partition('.')[0]}:{digest}"
            if name in counts:
                counts[name] += 1
        return counts

    @_guarded
    async def forget(self, ring: Ring) -> int:
        """Delete a ring of every entity, by SCAN and UNLINK, which block nobody."""
        count = 0
        async for key in self._keys(ring):
            count += await self._redis.unlink(key)
        return count

    def _keys(self, ring: Ring) -> AsyncIterator[bytes]:
        """The keys of a ring, some more than once where Redis resizes meanwhile."""
        return self._redis.scan_iter(f"f:{{{ring.view}.*}}:{ring.digest}:*", count=_SCANNED)

    async def is_ready(self) -> bool:
        """Whether Redis answers PING."""
        try:
            return bool(await self._redis.ping())
        except _FAILURES:
            return False

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


class RedisClusterStore(RedisStore):
    """A FeatureStore in a cluster of Redis or Valkey.

    A ring's key names its hash tag, so the scripts stay within one slot; only calls to all servers differ.

    Args:
        client: a client that answers bytes.
        seen_ttl_s: as for RedisStore.
        replicas: as for RedisStore, of every primary.
    """

    def __init__(self, client: RedisCluster, *, seen_ttl_s: int, replicas: int = 0) -> None:
        super().__init__(cast("Redis", client), seen_ttl_s=seen_ttl_s, replicas=replicas)
        self._cluster = client

    async def _get(self, keys: Sequence[str]) -> list[bytes | None]:
        """By one MGET per slot."""
        return cast("list[bytes | None]", await self._cluster.mget_nonatomic(keys))

    async def _wait_for_disks(self) -> list[tuple[int, int]]:
        await self._cluster.initialize()
        # Only the client's own commands notice that a primary has failed, and find its successor.
        for key in self._primaries().values():
            await self._cluster.set(key, b"")
        return await asyncio.gather(*(self._wait_for_disk(node, key) for node, key in self._primaries().items()))

    async def _wait_for_disk(self, node: ClusterNode, key: str) -> tuple[int, int]:
        connection = node.acquire_connection()
        try:
            await connection.send_command("SET", key, b"")
            await node.parse_response(connection, "SET")
            await connection.send_command("WAITAOF", 1, self._replicas, _PERSIST_MS)
            local, replicas = await node.parse_response(connection, "WAITAOF")
            return int(local), int(replicas)
        except BaseException:
            await connection.disconnect(nowait=True)  # nobody else may read an answer that is still to come
            raise
        finally:
            node.release(connection)

    def _primaries(self) -> dict[ClusterNode, str]:
        """The primaries that have slots, each with a key that lies there."""
        slots = self._cluster.nodes_manager.slots_cache
        serving = {nodes[0] for nodes in slots.values()}
        keys: dict[ClusterNode, str] = {}
        for number in range(len(slots)):
            key = f"{_PERSISTED}:{number}"
            if nodes := slots.get(key_slot(key.encode())):
                keys.setdefault(nodes[0], key)
            if len(keys) == len(serving):
                break
        return keys

    async def is_ready(self) -> bool:
        """Whether every primary answers PING."""
        try:
            return bool(await self._cluster.ping(target_nodes=RedisCluster.PRIMARIES))
        except _FAILURES:
            return False


def _calls(ring: Ring, tallies: Mapping[str, Sequence[Tally]]) -> Iterator[dict[str, list[Tally]]]:
    """Tallies by entity, split into calls of one hash tag and similar size; an entity's tallies keep their order."""
    by_tag: dict[int, list[str]] = defaultdict(list)
    for entity in tallies:
        by_tag[_tag(entity)].append(entity)
    for entities in by_tag.values():
        call: dict[str, list[Tally]] = {}
        size = 0
        for entity in entities:
            for tally in tallies[entity]:
                call.setdefault(entity, []).append(tally)
                size += len(tally.cells) * ring.layout.cell_bytes
                if size >= _CALL_BYTES:
                    yield call
                    call, size = {}, 0
        if call:
            yield call


def ring_keys(ring: Ring, entities: Iterable[str]) -> list[str]:
    """The keys of entities' rings: `f:{view.tag}:<digest>:<entity>`.

    The braces keep keys of one tag in one slot of a cluster, so that a script or an MGET over them is allowed; a view's
    entities are spread over the tags.
    """
    return [f"f:{{{ring.view}.{_tag(entity)}}}:{ring.digest}:{entity}" for entity in entities]


@lru_cache(_REMEMBERED_TAGS)
def _tag(entity: str) -> int:
    return zlib.crc32(entity.encode("utf-8", "surrogatepass")) % _TAGS


def _seen(frame_id: str) -> str:
    return f"seen:{frame_id}"


def _filled(partition: int) -> str:
    return f"{{feeds.{partition}}}:live"


def _owner(partition: int) -> str:
    return f"{{feeds.{partition}}}:owner"


def _applied(partition: int) -> str:
    return f"{{feeds.{partition}}}:applied"


def _position(frame: FramePosition) -> bytes:
    return f"{frame.partition}/{frame.offset}".encode()
