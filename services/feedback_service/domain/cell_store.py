"""The cells of one partition: read from its table on demand, written back at a flush."""

from collections.abc import Iterable
from typing import Protocol

from services.feedback_service.domain.cells import Cell

CELLS_IN_MEMORY = 256
"""Cells of a partition that stay in memory after a flush or an update: ten busy experiments' with some cohorts."""


class Table(Protocol):
    """The durable entries of one partition."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        ...

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        ...

    def scan(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        """The entries whose keys begin with the prefix, in the order of their keys, as of the last flush."""
        ...


class CellStore:
    """A partition's cells by key.

    Args:
        table: holds them between flushes.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._cells: dict[bytes, Cell] = {}
        self._changed: set[bytes] = set()
        self._removed: set[bytes] = set()

    def get(self, key: bytes, predictions: int, feedback: int) -> Cell:
        """A cell that holds all records up to these offsets, the last ones applied."""
        cell = self._cells.pop(key, None)
        if cell is None:
            value = None if key in self._removed else self._table.get(key)
            cell = Cell() if value is None else Cell.decode(value)
            cell.predictions_mark = max(cell.predictions_mark, predictions)
            cell.feedback_mark = max(cell.feedback_mark, feedback)
        self._cells[key] = cell  # in the order of their last use
        return cell

    def change(self, key: bytes) -> None:
        """Note that a cell differs from its stored value."""
        self._changed.add(key)
        self._removed.discard(key)

    def remove(self, key: bytes) -> None:
        """Delete a cell at the next flush."""
        self._cells.pop(key, None)
        self._changed.discard(key)
        self._removed.add(key)

    @property
    def is_changed(self) -> bool:
        """Whether a flush has cells to write."""
        return bool(self._changed or self._removed)

    def write(self, predictions: int, feedback: int) -> None:
        """Write the changed cells, days first, then totals, then deletions of cohorts; keep few cells in memory.

        A total that includes a cohort must never be stored before the day that does, nor may the cohort be deleted
        before both are stored.
        """
        for key in sorted(self._changed, key=lambda key: (key[:1] != b"d", key)):
            self._table.put(key, self._cells[key].encode(predictions, feedback))
        for key in sorted(self._removed):
            self._table.delete(key)
        self._changed, self._removed = set(), set()
        self.shrink()

    def shrink(self) -> None:
        """Keep few cells in memory besides the changed ones."""
        stored = [key for key in self._cells if key not in self._changed]
        for key in stored[: max(0, len(self._cells) - CELLS_IN_MEMORY)]:
            del self._cells[key]
