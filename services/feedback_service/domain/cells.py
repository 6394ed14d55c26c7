"""The sums of some rows of one variant while a worker holds them: exact, and able to take back what they were given.

A cell is a pure function of the two topics: it holds what the frames up to one offset and the reports up to another
come to. It is stored with these two marks, so that a record that is read again is known to be in it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import msgspec

from contender.contracts.feedback_service import Counts
from services.feedback_service.domain.exact import nearest, pack, unpack
from services.feedback_service.domain.judging import JudgedRows, LossRow
from services.feedback_service.domain.snapshots import CohortSnapshot, MetricSums


class SumsEntry(msgspec.Struct, frozen=True, array_like=True):
    """ExactSums as they are stored; the integers are packed."""

    rows: dict[int, int]
    totals: dict[str, dict[int, bytes]]
    squares: dict[str, bytes]
    negatives: dict[int, int]
    positives: dict[int, int]


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
class ExactSums:
    """The exact counterpart of MetricSums: totals by (metric, bucket) and squares by metric in units of `exact`."""

    rows: Counter[int] = field(default_factory=Counter)
    totals: Counter[tuple[str, int]] = field(default_factory=Counter)
    squares: Counter[str] = field(default_factory=Counter)
    negatives: Counter[int] = field(default_factory=Counter)
    positives: Counter[int] = field(default_factory=Counter)

    def add(self, sign: int, rows: Iterable[LossRow]) -> None:
        """Add (sign 1) or take back (sign -1) rows."""
        for row in rows:
            self.rows[row.bucket] += sign
            for metric, loss, square in row.losses:
                self.totals[metric, row.bucket] += sign * loss
                self.squares[metric] += sign * square
            if row.score_bin is not None:
                (self.positives if row.positive else self.negatives)[row.score_bin] += sign

    def absorb(self, other: "ExactSums") -> None:
        """Add everything that the other one holds."""
        for one in fields(self):
            getattr(self, one.name).update(getattr(other, one.name))

    def snapshot(self) -> MetricSums:
        """The sums as they are published."""
        totals: dict[str, dict[int, float]] = {}
        for (metric, bucket), units in sorted(self.totals.items()):
            if self.rows[bucket]:
                totals.setdefault(metric, {})[bucket] = nearest(units)
        rows = _nonzero(self.rows)
        squares = {metric: nearest(units) for metric, units in sorted(self.squares.items()) if rows}
        return MetricSums(rows, totals, squares, _nonzero(self.negatives), _nonzero(self.positives))

    def entry(self) -> SumsEntry:
        """The sums as they are stored."""
        totals: dict[str, dict[int, bytes]] = {}
        for (metric, bucket), units in self.totals.items():
            if self.rows[bucket]:
                totals.setdefault(metric, {})[bucket] = pack(units)
        squares = {metric: pack(units) for metric, units in self.squares.items()}
        return SumsEntry(_nonzero(self.rows), totals, squares, _nonzero(self.negatives), _nonzero(self.positives))

    @classmethod
    def of(cls, entry: SumsEntry) -> "ExactSums":
        """The sums that were stored."""
        totals = Counter(
            {(metric, bucket): unpack(units) for metric, row in entry.totals.items() for bucket, units in row.items()}
        )
        squares = Counter({metric: unpack(units) for metric, units in entry.squares.items()})
        return cls(Counter(entry.rows), totals, squares, Counter(entry.negatives), Counter(entry.positives))


@dataclass(slots=True)
class Cell:
    """Some rows of one variant and what became of them.

    The marks are those it was loaded with: frames and reports up to them are in it, whatever is read again.
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

    def add(self, sign: int, judged: JudgedRows) -> None:
        """Add, or take back, what became of rows."""
        self.count(sign, judged.counts)
        self.labelled.add(sign, judged.labelled)
        self.assumed.add(sign, judged.assumed)

    def count(self, sign: int, counts: Mapping[str, int]) -> None:
        """Add or take back counts alone."""
        for name, number in counts.items():
            self.counts[name] += sign * number

    def absorb(self, other: "Cell") -> None:
        """Add everything that the other one holds."""
        self.counts.update(other.counts)
        self.rows.update(other.rows)
        self.labelled.absorb(other.labelled)
        self.assumed.absorb(other.assumed)

    def snapshot(self, matures_at: float) -> CohortSnapshot:
        """The cell as it is published."""
        return CohortSnapshot(
            matures_at,
            Counts(**self.counts),
            _nonzero(self.rows),
            self.labelled.snapshot(),
            self.assumed.snapshot(),
        )

    def encode(self, predictions: int, feedback: int) -> bytes:
        """The cell as it is stored: everything up to these offsets, or its marks where they are higher, is in it."""
        entry = CellEntry(
            max(self.predictions_mark, predictions),
            max(self.feedback_mark, feedback),
            self.folded_until,
            {name: number for name, number in self.counts.items() if number},
            _nonzero(self.rows),
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


def _nonzero(counter: Mapping[int, int]) -> dict[int, int]:
    return {key: count for key, count in sorted(counter.items()) if count}


_CELLS = msgspec.msgpack.Decoder(CellEntry)
