"""Which events a row sees: slices of a history that is sorted by entity and time."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from contender.features.tiles import Floats

__all__ = ["Floats", "Indices", "Spans", "values_at"]

Indices = NDArray[np.int64]
_ROWS_AT_ONCE = 1 << 17
"""Rows whose visible events are looked for together: some hundred bytes each while it goes on."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Slices [low, high) of a history, each for one row: none, one or several, ordered by row, then by time.

    `row`, `low` and `high` have shape (spans,); `rows` is how many rows there are, and `one_each` whether each has
    exactly one slice.
    """

    row: Indices
    low: Indices
    high: Indices
    rows: int
    one_each: bool = False

    @classmethod
    def of_rows(cls, low: Indices, high: Indices) -> Self:
        """One slice per row, shape (rows,) each."""
        return cls(np.arange(len(low)), low, high, len(low), one_each=True)

    @property
    def count(self) -> Indices:
        """How many events each row sees, shape (rows,)."""
        return self.summed(self.high - self.low)

    def summed(self, numbers: Indices) -> Indices:
        """Whole numbers per slice, shape (spans,), added up by row, shape (rows,)."""
        if self.one_each:
            return numbers
        return np.bincount(self.row, numbers, self.rows).astype(np.int64)

    def latest(self, n: int) -> Indices:
        """The n last events of each row, the latest first; -1 where there are no more. Shape (rows, n)."""
        count, length = self.count, self.high - self.low
        later = np.cumsum(count)[self.row] - np.cumsum(length)  # seen by the row after this slice
        positions = np.full((self.rows, n), -1, dtype=np.int64)
        for position in range(n):
            here = np.flatnonzero((later <= position) & (position < later + length))
            positions[self.row[here], position] = self.high[here] - 1 - (position - later[here])
        return positions

    def earliest(self) -> Indices:
        """The first event of each row, shape (rows,); -1 where there is none."""
        some = np.flatnonzero(self.low < self.high)[::-1]  # of several slices of a row the first is written last
        positions = np.full(self.rows, -1, dtype=np.int64)
        positions[self.row[some]] = self.low[some]
        return positions

    def known(self, ingested: Floats, times: Floats) -> "Spans":
        """The same slices without events that were ingested after their row's time.

        Args:
            ingested: when each event of the history became known, shape (events,).
            times: the time of each row, shape (rows,).
        """
        bounds = _Bounds.of(ingested)
        starts = range(0, len(self.row), _ROWS_AT_ONCE)
        parts = [bounds.known(self, slice(start, start + _ROWS_AT_ONCE), times) for start in starts]
        if not parts:
            return self
        row, low, high = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Spans(row, low, high, self.rows)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Least and greatest of the numbers in each block of 1, 2, 4 … of them."""

    least: list[Floats]
    greatest: list[Floats]

    @classmethod
    def of(cls, numbers: Floats) -> Self:
        padding = np.full((1 << max(0, len(numbers) - 1).bit_length()) - len(numbers), np.inf)
        least, greatest = [np.append(numbers, padding)], [np.append(numbers, -padding)]
        while len(least[-1]) > 1:
            least.append(np.minimum(least[-1][0::2], least[-1][1::2]))
            greatest.append(np.maximum(greatest[-1][0::2], greatest[-1][1::2]))
        return cls(least, greatest)

    def known(self, spans: Spans, chosen: slice, times: Floats) -> tuple[Indices, Indices, Indices]:
        """Row, low and high of the known parts of some slices.

        Descends from the block of all events: takes a block whose events are all known, leaves one without known
        events, and splits the others.
        """
        span = np.arange(len(spans.row))[chosen]
        block = np.zeros(len(span), dtype=np.int64)
        parts: list[tuple[Indices, Indices, Indices]] = []
        for level in reversed(range(len(self.least))):
            at = times[spans.row[span]]
            low = np.maximum(block << level, spans.low[span])
            high = np.minimum((block + 1) << level, spans.high[span])
            some = (low < high) & (self.least[level][block] <= at)
            whole = some & (self.greatest[level][block] <= at)
            parts.append((span[whole], low[whole], high[whole]))
            span, block = np.repeat(span[some & ~whole], 2), np.repeat(block[some & ~whole] * 2, 2)
            block[1::2] += 1
        indices, low, high = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return _joined(spans.row[indices], low, high)


def _joined(row: Indices, low: Indices, high: Indices) -> tuple[Indices, Indices, Indices]:
    """The slices sorted by row and time; those that touch are joined."""
    order = np.lexsort((low, row))
    row, low, high = row[order], low[order], high[order]
    begins = np.ones(len(row), dtype=np.bool_)
    begins[1:] = (row[1:] != row[:-1]) | (low[1:] != high[:-1])
    ends = np.append(begins[1:], np.ones(min(1, len(row)), dtype=np.bool_))
    return row[begins], low[begins], high[ends]


def values_at(values: Floats, positions: Indices) -> Floats:
    """Values at positions; anything where a position is -1."""
    return values[positions] if len(values) else np.zeros(positions.shape)
