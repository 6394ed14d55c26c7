"""What some rows add to every metric, exactly, so that it can be taken back whatever came in between."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from contender.contracts.metrics import Metric, ServedRows
from services.feedback_service.domain.snapshots import SumsSnapshot
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.fixed_point import from_fixed_point, pack, to_fixed_point, unpack
from services.feedback_service.domain.sums.metric_sums import Buckets, LabelledRows
from services.feedback_service.domain.sums.score_histogram import read_first_release


class SumsEntry(msgspec.Struct, frozen=True, array_like=True):
    """ExactSums as they are stored; the totals are packed. The last three fields are of the first release."""

    rows: dict[int, int]
    totals: dict[str, dict[int, int | bytes]]
    squares: dict[str, bytes] = {}
    negatives: dict[int, int] = {}
    positives: dict[int, int] = {}


@dataclass(frozen=True, slots=True)
class RowAdditions:
    """What one row adds: by `Metric.totals_name` a key, and a value in units of `to_fixed_point`.

    `weight` is the rows that it stands for: more than one where most labels like its own are never seen, none where the
    row itself is counted already.
    """

    bucket: int
    totals: list[tuple[str, int, int]]
    weight: int = 1


@dataclass(slots=True)
class ExactSums:
    """Rows by the unit's bucket, and by metric the totals by key in units of `to_fixed_point`."""

    rows: Counter[int] = field(default_factory=Counter)
    totals: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, sign: int, rows: Iterable[RowAdditions]) -> None:
        """Add (sign 1) or take back (sign -1) rows."""
        for row in rows:
            self.rows[row.bucket] += sign * row.weight
            for metric, key, units in row.totals:
                self.totals[metric][key] += sign * units

    def absorb(self, other: "ExactSums") -> None:
        """Add everything that the other one holds."""
        self.rows.update(other.rows)
        for metric, totals in other.totals.items():
            self.totals[metric].update(totals)

    def snapshot(self) -> SumsSnapshot:
        """The sums as they are published."""
        rows, totals = self._nonzero()
        return SumsSnapshot(
            rows, {metric: {key: from_fixed_point(u) for key, u in row.items()} for metric, row in totals.items()}
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added, or all of it was taken back."""
        return not any(self.rows.values())

    def entry(self) -> SumsEntry:
        """The sums as they are stored."""
        rows, totals = self._nonzero()
        return SumsEntry(rows, {metric: {key: pack(u) for key, u in row.items()} for metric, row in totals.items()})

    def _nonzero(self) -> tuple[dict[int, int], dict[str, dict[int, int]]]:
        """Rows and totals: a metric stays, with no totals, where its value is zero in every row."""
        rows = nonzero(self.rows)
        return rows, {metric: nonzero(self.totals[metric]) for metric in sorted(self.totals)} if rows else {}

    @classmethod
    def of(cls, entry: SumsEntry) -> "ExactSums":
        """The sums that were stored."""
        totals = {metric: {key: unpack(packed) for key, packed in row.items()} for metric, row in entry.totals.items()}
        totals |= read_first_release(entry.negatives, entry.positives)
        sums = cls(Counter(entry.rows))
        for metric, row in totals.items():
            sums.totals[metric].update(row)
        return sums


def row_additions(
    metrics: Sequence[Metric], rows: LabelledRows, weights: Sequence[int] | None = None
) -> list[RowAdditions]:
    """What each row adds to the metrics: its weight, by default 1, times its value.

    Raises:
        OverflowError: a metric's value is infinite.
        ValueError: a metric's value is not a number.
    """
    added: list[list[tuple[str, int, int]]] = [[] for _ in rows.outcomes]
    weights = weights or [1] * len(added)
    for name, metric in {metric.totals_name: metric for metric in metrics}.items():
        keys, values = sums_of(metric).additions(metric, rows)
        for row, key, value, weight in zip(added, keys.tolist(), values.tolist(), weights, strict=True):
            row.append((name, key, weight * to_fixed_point(value)))
    return [RowAdditions(*row) for row in zip(rows.buckets.tolist(), added, weights, strict=True)]


def report_additions(metric: Metric, rows: Sequence[tuple[int, float]], *, weight: int = 1) -> list[RowAdditions]:
    """What rows add whose value was reported: pairs (bucket, value), each of which stands for `weight` rows."""
    buckets, values = zip(*rows, strict=True)
    keys, added = sums_of(metric).value_additions(np.array(buckets, dtype=np.uint8), np.array(values))
    columns = zip(buckets, keys.tolist(), added.tolist(), strict=True)
    name = metric.totals_name
    return [RowAdditions(bucket, [(name, key, to_fixed_point(value))], weight) for bucket, key, value in columns]


def served_sums(metrics: Sequence[Metric], buckets: Buckets, rows: ServedRows) -> ExactSums:
    """What answered rows add, all at once: they are never taken back.

    Every metric has totals, if none: a share of which nothing was reported yet is one of 0.
    """
    counts = np.bincount(buckets)
    filled = np.flatnonzero(counts)
    sums = ExactSums(Counter(dict(zip(filled.tolist(), counts[filled].tolist(), strict=True))))
    for metric in metrics:
        totals = sums.totals[metric.totals_name]
        if metric.served_values is not None:
            keys, values = sums_of(metric).value_additions(buckets, metric.served_values(rows))
            added = np.bincount(keys, weights=values)
            filled = np.flatnonzero(added)
            units = map(to_fixed_point, added[filled].tolist())
            totals.update(dict(zip(filled.tolist(), units, strict=True)))
    return sums


def nonzero(counter: Counter[int]) -> dict[int, int]:
    """The counts that are not zero, in the order of their keys."""
    return {key: count for key, count in sorted(counter.items()) if count}
