"""The sums of some rows of one variant while a worker holds them: exact, so that any row can be taken back.

A cell is a pure function of the two topics: it holds the frames up to one offset and the reports up to another. It is
stored with these two marks, so that a record that is read again is known to be in it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from contender.contracts.feedback_service import Counts
from services.feedback_service.domain.labelling import RowChanges
from services.feedback_service.domain.snapshots import CohortSnapshot
from services.feedback_service.domain.sums.exact import ExactSums, SumsEntry, nonzero


class CellEntry(msgspec.Struct, frozen=True, array_like=True):
    """A cell as it is stored."""

    predictions_mark: int
    feedback_mark: int
    folded_until: int | None
    counts: dict[str, int]
    rows: dict[int, int]
    labelled: SumsEntry
    assumed: SumsEntry


@dataclass(slots=True)
class Cell:
    """Some rows of one variant, and their labels.

    The marks are those that it was loaded with: it holds frames and reports up to them, whatever is read again.
    `folded_until` is the number of the first cohort that is not in it, for cells of matured rows.
    """

    predictions_mark: int = -1
    feedback_mark: int = -1
    folded_until: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    rows: Counter[int] = field(default_factory=Counter)
    labelled: ExactSums = field(default_factory=ExactSums)
    assumed: ExactSums = field(default_factory=ExactSums)

    def add_predictions(self, buckets: Sequence[int], *, degraded: int, fallbacks: int) -> None:
        """Count predictions."""
        self.rows.update(buckets)
        self.counts["predictions"] += len(buckets)
        self.counts["degraded"] += degraded
        self.counts["fallbacks"] += fallbacks

    def add(self, sign: int, changes: RowChanges) -> None:
        """Add the changes of rows, or take them back."""
        self.count(sign, changes.counts)
        self.labelled.add(sign, changes.labelled)
        self.assumed.add(sign, changes.assumed)

    def count(self, sign: int, counts: Mapping[str, int]) -> None:
        """Add or take back counts alone."""
        for name, number in counts.items():
            self.counts[name] += sign * number

    def absorb(self, other: "Cell") -> None:
        """Add all rows of another cell."""
        self.counts.update(other.counts)
        self.rows.update(other.rows)
        self.labelled.absorb(other.labelled)
        self.assumed.absorb(other.assumed)

    def published_counts(self) -> Counts:
        """The counts as they are published."""
        return msgspec.convert(self.counts, Counts)

    def snapshot(self, matures_at: float) -> CohortSnapshot:
        """The cell as it is published."""
        return CohortSnapshot(
            matures_at,
            self.published_counts(),
            nonzero(self.rows),
            self.labelled.snapshot(),
            self.assumed.snapshot(),
        )

    def encode(self, predictions: int, feedback: int) -> bytes:
        """The cell as it is stored: it holds all up to these offsets, or up to its marks where those are higher."""
        entry = CellEntry(
            max(self.predictions_mark, predictions),
            max(self.feedback_mark, feedback),
            self.folded_until,
            {name: number for name, number in self.counts.items() if number},
            nonzero(self.rows),
            self.labelled.entry(),
            self.assumed.entry(),
        )
        return msgspec.msgpack.encode(entry)

    @classmethod
    def decode(cls, value: bytes) -> "Cell":
        """Read a stored cell."""
        entry = _CELLS.decode(value)
        return cls(
            entry.predictions_mark,
            entry.feedback_mark,
            entry.folded_until,
            Counter(entry.counts),
            Counter(entry.rows),
            ExactSums.of(entry.labelled),
            ExactSums.of(entry.assumed),
        )


_CELLS = msgspec.msgpack.Decoder(CellEntry)
