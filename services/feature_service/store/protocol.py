"""The protocol of a store of tiles."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from services.feature_service.domain import Ring, StoredRing, Tally
from services.feature_service.frames import FramePosition
from shared.errors import Unavailable

HEALTH_TTL_S = 3600.0
"""How long a worker's last health figures are kept; far above any clock skew."""


class StoreUnavailableError(Unavailable):
    """The store can't be reached, or refuses to write."""


class RingQuery(NamedTuple):
    """Asks for a ring of some entities."""

    ring: Ring
    entities: Sequence[str]


class RingsRead(NamedTuple):
    """The rings of each query's entities (None: no ring), and the store's epoch, empty if it has none."""

    epoch: str
    rings: list[list[StoredRing | None]]


class RingReader(Protocol):
    """Reads rings, to answer questions."""

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        """The rings that queries ask for, read at once."""
        ...


class FeatureStore(RingReader, Protocol):
    """Tiles by ring and entity, and which frames are in them.

    `largest_item_bytes` limits the ring of one entity: definitions that need more are refused. Every method raises
    StoreUnavailableError where the store can't be reached.
    """

    largest_item_bytes: int

    async def claim(self, frames: Sequence[FramePosition]) -> list[bool]:
        """Whether each frame is to be applied: False for one whose id was first seen at another position.

        A frame that is read again at its own position is applied again: offset marks keep it from counting twice.
        """
        ...

    async def merge(self, ring: Ring, tallies: Mapping[str, Sequence[Tally]]) -> int:
        """Merge tallies into rings, each once: skips a tally at or below its entity's offset mark.

        Args:
            ring: which ring.
            tallies: by entity, in the order of their offsets per partition.

        Returns:
            The number of late events: a newer tile had taken their tile's slot.
        """
        ...

    async def note_applied(self, partition: int, offset: int, token: str) -> str:
        """Note that everything of a partition up to the offset has been merged; a mark never moves back.

        Returns:
            The newest owner's token, empty if there is none. If it differs from `token` nothing is noted: a former
            owner may not have merged into rings that a newer one feeds.
        """
        ...

    async def epoch(self, proposed: str) -> str:
        """The name that the store got when it was empty; an empty store gets the proposed one."""
        ...

    async def applied(self, partitions: Sequence[int]) -> list[int | None]:
        """The offset up to which everything has been merged, per partition; None if unknown."""
        ...

    async def persist(self) -> None:
        """Return once everything written before is on disk, if the store can confirm it."""
        ...

    async def is_applied(self, frame_id: str) -> bool:
        """Whether the frame of that id has been merged."""
        ...

    async def own(self, partition: int, token: str) -> frozenset[str]:
        """Become the owner of a partition, and return the names of the rings that are fed from it already.

        From now on `mark_filled` with an older owner's token is refused.
        """
        ...

    async def mark_filled(self, names: Sequence[str], partition: int, token: str) -> str:
        """Note that rings hold all earlier events of a partition, and that its stream feeds them.

        Returns:
            The newest owner's token, empty if there is none. If it differs from `token` nothing is noted.
        """
        ...

    async def filled_rings(self, partitions: Sequence[int]) -> list[frozenset[str]]:
        """Per partition the names of the rings that are fed from it."""
        ...

    async def write_health(self, worker: str, health: bytes, at: float) -> None:
        """Replace a worker's health figures, which it computed at a time in seconds.

        Drops figures that are more than `HEALTH_TTL_S` older: a worker reports under a new name after every start.
        """
        ...

    async def read_health(self) -> dict[str, bytes]:
        """The last health figures of each worker."""
        ...

    async def entities(self, rings: Sequence[Ring]) -> dict[str, int]:
        """The number of entities that have each ring, by the ring's name."""
        ...

    async def forget(self, ring: Ring) -> int:
        """Delete a ring of every entity, and return how many there were."""
        ...

    async def is_ready(self) -> bool:
        """Whether the store answers. Raises nothing."""
        ...
