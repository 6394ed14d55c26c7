"""The sums of some rows of one variant while a worker holds them: exact, so that any row can be taken back.

A cell is a pure function of the two topics: it holds the frames up to one offset and the reports up to another. It is
stored with these two marks, so that a record that is read again is known to be in it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from contender.contracts.feedback_service import Counts
from contender.contracts.metrics import LABELLED, METRICS, SERVED
from services.feedback_service.domain.agreement import AGREEMENT
from services.feedback_service.domain.labelling import RowChanges
from services.feedback_service.domain.snapshots import CohortSnapshot, DaySnapshot, is_segment
from services.feedback_service.domain.sums import sums_of
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
    unanswered: dict[int, int] = {}
    late: dict[int, int] = {}
    ledgers: dict[str, SumsEntry] = {}


@dataclass(slots=True)
class Cell:
    """Some rows of one variant, and their labels.

    `rows`, `unanswered` and `late` count rows by the unit's bucket: those with a prediction, those without, and those
    whose label came after their window alone. `ledgers` are further sums, by `Metric.ledger` or by segment.

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
    unanswered: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    ledgers: dict[str, ExactSums] = field(default_factory=dict)

    def add_predictions(self, buckets: Sequence[int], *, degraded: int, fallbacks: int) -> None:
        """Count predictions."""
        self.rows.update(buckets)
        self.counts["predictions"] += len(buckets)
        self.counts["degraded"] += degraded
        self.counts["fallbacks"] += fallbacks

    def add_served(self, rows: ExactSums) -> None:
        """Add answered rows to the sums over all of them."""
        self.ledger(SERVED).absorb(rows)

    def add_agreement(self, rows: ExactSums) -> None:
        """Add rows that two variants have scored to the sums of how far they agree."""
        self.ledger(AGREEMENT).absorb(rows)

    def add_unanswered(self, buckets: Sequence[int]) -> None:
        """Count rows that were assigned the variant and got no prediction."""
        self.unanswered.update(buckets)
        self.counts["unanswered"] += len(buckets)

    def add(self, sign: int, changes: RowChanges, *, segments: bool = True) -> None:
        """Add the changes of rows, or take them back; with or without those of segments."""
        self.count(sign, changes.counts)
        for bucket, rows in changes.late.items():
            self.late[bucket] += sign * rows
        self.labelled.add(sign, changes.labelled)
        self.assumed.add(sign, changes.assumed)
        for name, added in changes.ledgers.items():
            if segments or not is_segment(name):
                self.ledger(name).add(sign, added)

    def ledger(self, name: str) -> ExactSums:
        """The further sums of that name."""
        return self.ledgers.setdefault(name, ExactSums())

    def count(self, sign: int, counts: Mapping[str, int]) -> None:
        """Add or take back counts alone."""
        for name, number in counts.items():
            self.counts[name] += sign * number

    def absorb(self, other: "Cell", *, segments: bool = True) -> None:
        """Add all rows of another cell; with or without its segments."""
        self.counts.update(other.counts)
        self.rows.update(other.rows)
        self.unanswered.update(other.unanswered)
        self.late.update(other.late)
        self.labelled.absorb(other.labelled)
        self.assumed.absorb(other.assumed)
        for name, sums in other.ledgers.items():
            if segments or not is_segment(name):
                self.ledger(name).absorb(sums)

    def published_counts(self) -> Counts:
        """The counts as they are published."""
        return msgspec.convert(self.counts, Counts)

    def snapshot(self, matures_at: float, *, is_matured: bool = False) -> CohortSnapshot:
        """The cell as it is published; `is_matured` where it holds the rows that have matured.

        Segments are published of those alone: nothing else of them is read.
        """
        return CohortSnapshot(
            matures_at,
            self.published_counts(),
            nonzero(self.rows),
            self.labelled.snapshot(),
            self.assumed.snapshot(),
            is_matured,
            nonzero(self.unanswered),
            nonzero(self.late),
            {name: sums.snapshot() for name, sums in self._kept_ledgers() if is_matured or not is_segment(name)},
        )

    def _kept_ledgers(self) -> Iterator[tuple[str, ExactSums]]:
        return ((name, sums) for name, sums in sorted(self.ledgers.items()) if not sums.is_empty)

    def day(self, number: int, *, assume_negative: bool) -> DaySnapshot:
        """The cell as a day is published; with `assume_negative` its unlabelled rows count as negative."""
        parts = [self.labelled.snapshot(), *([self.assumed.snapshot()] if assume_negative else [])]
        parts += [self.ledgers[name].snapshot() for name in _LEDGERS if name in self.ledgers]
        totals: dict[str, dict[int, float]] = {}
        for part in parts:
            for name, by_key in part.totals.items():
                if name not in _SUMS:  # a metric that this release lacks
                    continue
                sums = totals.setdefault(name, {})
                for key, value in _SUMS[name].day_totals(part.rows, by_key).items():
                    sums[key] = sums.get(key, 0.0) + value
        return DaySnapshot(number, self.rows.total(), totals)

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
            nonzero(self.unanswered),
            nonzero(self.late),
            {name: sums.entry() for name, sums in self._kept_ledgers()},
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
            Counter(entry.unanswered),
            Counter(entry.late),
            {name: ExactSums.of(sums) for name, sums in entry.ledgers.items()},
        )


_LEDGERS = sorted({metric.ledger for metric in METRICS} - {LABELLED})
_SUMS = {metric.name: sums_of(metric) for metric in METRICS}

_CELLS = msgspec.msgpack.Decoder(CellEntry)
