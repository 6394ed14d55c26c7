"""The cells of one partition: read from its table when they are needed, written back at a flush."""

from collections.abc import Iterable
from typing import Protocol

from services.feedback_service.domain.cells import Cell

CELLS_IN_MEMORY = 256
"""Cells of a partition that stay in memory after a flush and after what readers get: those of ten busy experiments with
some of their cohorts."""


class Table(Protocol):
    """The durable entries of one partition."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        ...

    def delete(self, key: bytes) -> None:
        """Forget a key."""
        ...

    def scan(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        """The entries whose keys begin so, in the order of their keys, as of the last flush."""
        ...


class CellStore:
    """A partition's cells by key.

    Args:
        table: where they are kept.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._cells: dict[bytes, Cell] = {}
        self._changed: set[bytes] = set()
        self._removed: set[bytes] = set()

    def get(self, key: bytes, predictions: int, feedback: int) -> Cell:
        """A cell that holds everything up to these offsets, which are the last ones applied."""
        cell = self._cells.pop(key, None)
        if cell is None:
            value = None if key in self._removed else self._table.get(key)
            cell = Cell() if value is None else Cell.decode(value)
            cell.predictions_mark = max(cell.predictions_mark, predictions)
            cell.feedback_mark = max(cell.feedback_mark, feedback)
        self._cells[key] = cell  # the last one that was used stands last
        return cell

    def change(self, key: bytes) -> None:
        """Note that a cell differs from what is stored."""
        self._changed.add(key)
        self._removed.discard(key)

    def remove(self, key: bytes) -> None:
        """Give up a cell."""
        self._cells.pop(key, None)
        self._changed.discard(key)
        self._removed.add(key)

    @property
    def is_changed(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._changed or self._removed)

    def write(self, predictions: int, feedback: int) -> None:
        """Write what has changed, days before totals and cohorts that were given up last, and keep few in memory.

        A total that has taken up a cohort must never be stored without the day that has, nor the cohort be gone
        before either. Among the kinds of keys `d` comes before `g`.
        """
        for key in sorted(self._changed, key=lambda key: (key[:1] != b"d", key)):
            self._table.put(key, self._cells[key].encode(predictions, feedback))
        for key in sorted(self._removed):
            self._table.delete(key)
        self._changed, self._removed = set(), set()
        self.shrink()

    def shrink(self) -> None:
        """Keep few cells in memory besides those that differ from what is stored."""
        stored = [key for key in self._cells if key not in self._changed]
        for key in stored[: max(0, len(self._cells) - CELLS_IN_MEMORY)]:
            del self._cells[key]
