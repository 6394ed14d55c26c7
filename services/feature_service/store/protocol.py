"""What the service asks of a store of tiles."""

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
    """The rings of each query's entities, None where nothing is held, and the store's epoch: empty if it has none."""

    epoch: str
    rings: list[list[StoredRing | None]]


class RingReader(Protocol):
    """Reads rings, to answer questions."""

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        """The rings that queries ask for, by one request."""
        ...


class FeatureStore(RingReader, Protocol):
    """Tiles by ring and entity, and which frames are in them.

    `largest_item_bytes` limits the ring of one entity: definitions that need more are refused. Every method raises
    StoreUnavailableError where the store can't be reached.
    """

    largest_item_bytes: int

    async def claim(self, frames: Sequence[FramePosition]) -> list[bool]:
        """Whether each frame is to be applied: False for one whose id was first seen at another place.

        A frame that is read again from its own place is not a duplicate: offset marks see to it.
        """
        ...

    async def merge(self, ring: Ring, tallies: Mapping[str, Sequence[Tally]]) -> int:
        """Merge tallies into rings, each once: one at or below its entity's offset mark is skipped.

        Args:
            ring: which ring.
            tallies: by entity, in the order of their offsets per partition.

        Returns:
            How many events were too late: a newer tile had taken their tile's slot.
        """
        ...

    async def note_applied(self, partition: int, offset: int, token: str) -> str:
        """Note that everything of a partition up to the offset has been merged; a mark never moves back.

        Returns:
            The newest owner's token, empty where there is none. Where it is not the given one nothing is noted: what a
            former owner has merged may lack rings that a newer one feeds.
        """
        ...

    async def epoch(self, proposed: str) -> str:
        """What the store was named when it was empty: the proposed name where it is empty now."""
        ...

    async def applied(self, partitions: Sequence[int]) -> list[int | None]:
        """Per partition the offset up to which everything has been merged; None where nothing is known of it."""
        ...

    async def persist(self) -> None:
        """Return once everything written before is on disk, where the store can tell."""
        ...

    async def is_applied(self, frame_id: str) -> bool:
        """Whether the frame of that id has been merged."""
        ...

    async def own(self, partition: int, token: str) -> frozenset[str]:
        """Become the one that feeds rings from a partition; the names of those that are fed from it already.

        From now on `mark_filled` with an older owner's token is refused.
        """
        ...

    async def mark_filled(self, names: Sequence[str], partition: int, token: str) -> str:
        """Note that rings hold all that a partition had, and that its stream feeds them.

        Returns:
            The newest owner's token, empty where there is none. Where it is not the given one nothing is noted.
        """
        ...

    async def filled_rings(self, partitions: Sequence[int]) -> list[frozenset[str]]:
        """Per partition the names of the rings that are fed from it."""
        ...

    async def write_health(self, worker: str, health: bytes, at: float) -> None:
        """Replace a worker's health figures, which it worked out at a time in seconds.

        Drops figures that are more than `HEALTH_TTL_S` older: each start of a worker is another one.
        """
        ...

    async def read_health(self) -> dict[str, bytes]:
        """The last health figures of each worker."""
        ...

    async def entities(self, rings: Sequence[Ring]) -> dict[str, int]:
        """How many entities each ring is held of, by the ring's name."""
        ...

    async def forget(self, ring: Ring) -> int:
        """Delete a ring of every entity; how many there were."""
        ...

    async def is_ready(self) -> bool:
        """Whether the store answers. Raises nothing."""
        ...
