"""A partition's entries as of its last flush, and the changes since."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from services.feedback_service.domain.keys import expires_at

Write = tuple[bytes, bytes | None]
"""A key and its new value, or None where the entry is deleted."""


class LocalTable(Protocol):
    """A partition's entries on this machine, as of the last flush."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def scan(self, prefix: bytes) -> Iterable[Write]:
        """The entries whose keys begin with the prefix, in the order of their keys."""
        ...

    def expired(self, until: float, limit: int) -> list[bytes]:
        """The keys of entries that expire by then, in the order of their expiry."""
        ...


class ChangedTable:
    """A table with changes that wait for the next flush.

    Args:
        local: the entries as of the last flush.
    """

    def __init__(self, local: LocalTable) -> None:
        self.local = local
        self.changes: dict[bytes, bytes | None] = {}
        self.size = 0
        """Bytes put since the last flush, replaced values included."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        return self.changes[key] if key in self.changes else self.local.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        self.changes[key] = value
        self.size += len(value)

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self.changes[key] = None

    def clear(self) -> None:
        """Forget the changes: they are in the local entries."""
        self.changes, self.size = {}, 0

    def scan(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        """The entries whose keys begin with the prefix, as of the last flush."""
        return [(key, value) for key, value in self.local.scan(prefix) if value is not None]


class InMemoryTable:
    """A partition's entries in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        return self.values.get(key)

    def scan(self, prefix: bytes) -> list[Write]:
        """The entries whose keys begin with the prefix, in the order of their keys."""
        return [(key, self.values[key]) for key in sorted(self.values) if key.startswith(prefix)]

    def expired(self, until: float, limit: int) -> list[bytes]:
        """The keys of entries that expire by then, in the order of their expiry."""
        expiring = [(expires_at(key, value), key) for key, value in self.values.items()]
        return [key for expiry, key in sorted((e, k) for e, k in expiring if e is not None and e <= until)][:limit]

    def write(self, writes: Sequence[Write]) -> None:
        """Apply the writes of a flush."""
        for key, value in writes:
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
