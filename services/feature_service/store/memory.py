"""A store in memory, with the same bytes as Redis: for tests."""

from collections.abc import Mapping, Sequence

from contender.features.layouts import MOST_RING_BYTES
from services.feature_service.domain import Ring, RingContents, Tally
from services.feature_service.frames import FramePosition
from services.feature_service.store.protocol import HEALTH_TTL_S, RingQuery, RingsRead


class MemoryStore:
    """A FeatureStore that forgets everything with its process."""

    largest_item_bytes = 2 * MOST_RING_BYTES

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], RingContents] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._applied: dict[int, int] = {}
        self._filled: dict[int, set[str]] = {}
        self._owners: dict[int, str] = {}
        self._health: dict[str, tuple[float, bytes]] = {}
        self._epoch = ""

    async def claim(self, frames: Sequence[FramePosition]) -> list[bool]:
        """Whether each frame is to be applied."""
        return [
            not frame.frame_id
            or self._seen.setdefault(frame.frame_id, (frame.partition, frame.offset)) == (frame.partition, frame.offset)
            for frame in frames
        ]

    async def merge(self, ring: Ring, tallies: Mapping[str, Sequence[Tally]]) -> int:
        """Merge tallies into rings; returns the number of late events."""
        late = 0
        for entity, of_entity in tallies.items():
            held = self._held.setdefault((ring.name, entity), RingContents(ring))
            late += sum(held.apply(tally) for tally in of_entity)
        return late if ring.has_windows else 0

    async def note_applied(self, partition: int, offset: int, token: str) -> str:
        """Note how far a partition has been merged."""
        owner = self._owners.get(partition, "")
        if owner == token:
            self._applied[partition] = max(offset, self._applied.get(partition, -1))
        return owner

    async def epoch(self, proposed: str) -> str:
        """The name that the store got when it was empty."""
        self._epoch = self._epoch or proposed
        return self._epoch

    async def applied(self, partitions: Sequence[int]) -> list[int | None]:
        """How far each partition has been merged."""
        return [self._applied.get(partition) for partition in partitions]

    async def persist(self) -> None:
        """Nothing to wait for."""

    async def is_applied(self, frame_id: str) -> bool:
        """Whether the frame of that id has been merged."""
        partition, offset = self._seen.get(frame_id, (-1, 0))
        return self._applied.get(partition, -1) >= offset

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        """The rings that queries ask for."""
        held = [[self._held.get((ring.name, entity)) for entity in entities] for ring, entities in queries]
        return RingsRead(self._epoch, [[ring.stored() if ring else None for ring in of_query] for of_query in held])

    async def own(self, partition: int, token: str) -> frozenset[str]:
        """Become the owner of a partition."""
        self._owners[partition] = token
        return frozenset(self._filled.get(partition, ()))

    async def mark_filled(self, names: Sequence[str], partition: int, token: str) -> str:
        """Note that the stream of a partition feeds rings."""
        owner = self._owners.get(partition, "")
        if owner == token:
            self._filled.setdefault(partition, set()).update(names)
        return owner

    async def filled_rings(self, partitions: Sequence[int]) -> list[frozenset[str]]:
        """Per partition the names of the rings that are fed from it."""
        return [frozenset(self._filled.get(partition, ())) for partition in partitions]

    async def write_health(self, worker: str, health: bytes, at: float) -> None:
        """Replace a worker's health figures, and drop what is old."""
        self._health[worker] = at, health
        self._health = {name: kept for name, kept in self._health.items() if kept[0] >= at - HEALTH_TTL_S}

    async def read_health(self) -> dict[str, bytes]:
        """The last health figures of each worker."""
        return {worker: health for worker, (_, health) in self._health.items()}

    async def entities(self, rings: Sequence[Ring]) -> dict[str, int]:
        """The number of entities that have each ring."""
        return {ring.name: sum(held.ring.name == ring.name for held in self._held.values()) for ring in rings}

    async def forget(self, ring: Ring) -> int:
        """Delete a ring of every entity."""
        keys = [key for key, held in self._held.items() if held.ring.name == ring.name]
        for key in keys:
            del self._held[key]
        return len(keys)

    async def is_ready(self) -> bool:
        """Always."""
        return True
