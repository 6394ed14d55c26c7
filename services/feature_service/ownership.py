"""Which partitions a worker owns, and which rings their streams feed."""

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from services.feature_service.domain import Ring
from services.feature_service.store import FeatureStore

RingFilter = Callable[[Ring, int], bool]
"""Whether frames of a partition go into a ring."""


class PartitionTakenError(Exception):
    """Another worker owns a partition that this one believed it owned: this one must start again."""


@dataclass(slots=True)
class PartitionOwnership:
    """Which rings the stream feeds from the partitions of this worker.

    A worker asks the store which rings are fed only when it acquires a partition, before it merges a frame. Later the
    stream feeds a ring once this worker has filled it: before that, frames passed the ring without being merged.

    Every ring holds the frames of a partition up to some offset, without gaps: offset marks would hide a gap. `owned`
    has the partitions that are this worker's, from the moment they may be read.
    """

    store: FeatureStore
    owned: set[int] = field(default_factory=set)
    _fed: dict[int, set[str]] = field(default_factory=dict)
    _tokens: dict[int, str] = field(default_factory=dict)
    _done: dict[int, int] = field(default_factory=dict)

    def assign(self, partitions: Iterable[int]) -> None:
        """Own these partitions alone; another worker may have owned them in between."""
        assigned = set(partitions)
        self.forget([*self.owned, *assigned])
        self.owned = assigned

    async def acquire(self, partition: int) -> str:
        """Acquire a partition, unless this worker holds it already; returns the token of the ownership."""
        if token := self.token(partition):
            return token
        token = self._tokens[partition] = secrets.token_hex(8)
        try:
            fed = set(await self.store.own(partition, token))
        except BaseException:
            self.release(partition, token)
            raise
        if self.token(partition) == token:  # it may have been given up meanwhile
            self._fed[partition] = fed
        return token

    def forget(self, partitions: Iterable[int]) -> None:
        """Give partitions up."""
        for partition in partitions:
            self.owned.discard(partition)
            self._fed.pop(partition, None)
            self._tokens.pop(partition, None)
            self._done.pop(partition, None)

    def release(self, partition: int, token: str) -> None:
        """Drop a token that the store does not know; the partition, if still owned, is acquired again."""
        if self.token(partition) == token:
            self._fed.pop(partition, None)
            del self._tokens[partition]

    def token(self, partition: int) -> str:
        """The token of the ownership; empty where this worker does not hold the partition."""
        return self._tokens.get(partition, "")

    def feeds(self, ring: Ring, partition: int) -> bool:
        """Whether the stream of a partition feeds a ring."""
        return ring.name in self._fed.get(partition, ())

    def feeds_nothing(self, partition: int) -> bool:
        """Whether the stream of a partition feeds no ring yet."""
        return not self._fed.get(partition)

    async def fed_rings(self, partitions: Collection[int]) -> tuple[RingFilter, dict[int, str]]:
        """The rings that frames of some partitions go into, and the tokens of those partitions that this worker holds.

        Frames of a partition that this worker does not own go into the rings that its owner feeds; offset marks make
        the double merge harmless. Acquiring the partition for them would take it from its owner.
        """
        fed: dict[int, Collection[str]] = {}
        tokens: dict[int, str] = {}
        for partition in partitions:
            token = await self.acquire(partition) if partition in self.owned else ""
            if token and token == self.token(partition):
                tokens[partition] = token
                fed[partition] = frozenset(self._fed[partition])
            else:
                (fed[partition],) = await self.store.filled_rings([partition])
        return lambda ring, partition: ring.name in fed[partition], tokens

    async def record_progress(self, partition: int, offset: int, token: str) -> None:
        """Record how far a partition is merged. A former owner's token records nothing.

        A former owner has not merged into the rings that a newer one has filled.

        Raises:
            PartitionTakenError: another worker has acquired the partition, and this one was not notified.
        """
        self.note_done(partition, offset)
        owner = await self.store.note_applied(partition, offset, token)
        if not owner:  # the store has lost everything
            self.release(partition, token)
        elif owner != token == self.token(partition):
            raise PartitionTakenError(f"another worker has acquired partition {partition}")

    def note_done(self, partition: int, offset: int) -> None:
        """Remember the position of a partition's stream, whatever happens to the store."""
        self._done[partition] = max(offset, self._done.get(partition, -1))

    async def record_filled(self, partition: int, offset: int, token: str) -> None:
        """Record the progress of a partition whose rings are filled up to an offset, as far as its stream has come.

        Recorded at once so that an emptied store is noticed before the next frame; never past the stream's position,
        where unparsed records may wait.
        """
        if (done := min(offset, self._done.get(partition, -1))) >= 0:
            await self.record_progress(partition, done, token)

    async def mark_filled(self, rings: Sequence[Ring], partition: int, token: str) -> bool:
        """Let the stream feed rings that were filled under a token.

        Returns:
            False where the partition was given up meanwhile, or the store has lost everything: the rings are filled
            again.
        """
        if not token or token != self.token(partition):
            return False
        names = [ring.name for ring in rings]
        owner = await self.store.mark_filled(names, partition, token)
        if not owner:
            self.release(partition, token)
        if owner != token or token != self.token(partition):
            return False
        self._fed[partition].update(names)
        return True
