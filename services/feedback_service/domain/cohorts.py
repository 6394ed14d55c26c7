"""The sums of one cohort while a worker holds them: exact, and able to take back what they were given."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from services.feedback_service.domain.exact import exact, nearest
from services.feedback_service.domain.histograms import BINS
from services.feedback_service.domain.judging import Judgement
from services.feedback_service.domain.snapshots import CohortSnapshot, Counts, MetricSums


@dataclass(slots=True)
class ExactSums:
    """The exact counterpart of MetricSums: totals by (metric, bucket) and squares by metric in units of `exact`."""

    rows: Counter[int] = field(default_factory=Counter)
    totals: Counter[tuple[str, int]] = field(default_factory=Counter)
    squares: Counter[str] = field(default_factory=Counter)
    negatives: Counter[int] = field(default_factory=Counter)
    positives: Counter[int] = field(default_factory=Counter)

    def add(self, sign: int, bucket: int, losses: Mapping[str, float]) -> None:
        """Add (sign 1) or take back (sign -1) one row."""
        self.rows[bucket] += sign
        for metric, loss in losses.items():
            self.totals[metric, bucket] += sign * exact(loss)
            self.squares[metric] += sign * exact(loss * loss)

    def count_score(self, sign: int, score: float, *, positive: bool) -> None:
        """Add or take back one probability with its outcome."""
        histogram = self.positives if positive else self.negatives
        histogram[min(max(int(score * BINS), 0), BINS - 1)] += sign

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


@dataclass(slots=True)
class Cohort:
    """Predictions of one stretch of time for one variant, and what became of them."""

    counts: Counter[str] = field(default_factory=Counter)
    rows: Counter[int] = field(default_factory=Counter)
    labelled: ExactSums = field(default_factory=ExactSums)
    assumed: ExactSums = field(default_factory=ExactSums)
    _published: CohortSnapshot | None = None

    def add_prediction(self, bucket: int, *, degraded: bool, fallback: bool) -> None:
        """Count one prediction."""
        self._published = None
        self.rows[bucket] += 1
        self.counts["predictions"] += 1
        self.counts["degraded"] += degraded
        self.counts["fallbacks"] += fallback

    def add_judgement(self, sign: int, judgement: Judgement) -> None:
        """Count, or take back, what became of the reports for one row."""
        self._published = None
        self.counts["labelled"] += sign * (judgement.value is not None)
        for name in ("corrections", "late", "refused", "duplicates"):
            self.counts[name] += sign * getattr(judgement, name)

    def absorb(self, other: "Cohort") -> None:
        """Add everything that the other one holds."""
        self._published = None
        self.counts.update(other.counts)
        self.rows.update(other.rows)
        self.labelled.absorb(other.labelled)
        self.assumed.absorb(other.assumed)

    def snapshot(self, matures_at: float) -> CohortSnapshot:
        """The cohort as it is published; made anew only after a change."""
        if self._published is None or self._published.matures_at != matures_at:
            self._published = CohortSnapshot(
                matures_at,
                Counts(**self.counts),
                _nonzero(self.rows),
                self.labelled.snapshot(),
                self.assumed.snapshot(),
            )
        return self._published


def _nonzero(counter: Counter[int]) -> dict[int, int]:
    return {key: count for key, count in sorted(counter.items()) if count}
