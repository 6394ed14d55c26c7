"""Merges the snapshots of the partitions into the sums of each variant and epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from contender.contracts.feedback_service import Counts
from contender.contracts.metrics import LABELLED, METRICS, Metric
from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    DaySnapshot,
    GroupSnapshot,
    SumsSnapshot,
    is_segment,
)
from services.feedback_service.domain.sums import MetricSums, sums_of
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.metric_sums import dense
from services.feedback_service.domain.sums.units import BUCKETS

Floats = NDArray[np.float64]

_NO_ROWS = np.zeros(BUCKETS)
_LEDGERS = {name for metric in METRICS for name in (metric.ledger, metric.late_ledger)} - {LABELLED}


@dataclass(frozen=True, slots=True)
class Tally:
    """Some rows of one variant in one epoch: all of them, or those that have matured.

    All but `metrics` and `counts` are rows by bucket, shape (BUCKETS,): `rows` are predictions, `labelled` those with a
    label, `late` those whose label came after the window, and `unanswered` the rows that got no prediction. `metrics`
    are each over the rows of `Metric.ledger`; where a missing label means negative, those of matured rows hold the
    unlabelled ones as well. `ledgers` are the rows by bucket of ledgers other than the labelled rows.
    """

    counts: Counts = field(default_factory=Counts)
    rows: Floats = field(default_factory=lambda: np.zeros(BUCKETS))
    labelled: Floats = field(default_factory=lambda: np.zeros(BUCKETS))
    late: Floats = field(default_factory=lambda: np.zeros(BUCKETS))
    unanswered: Floats = field(default_factory=lambda: np.zeros(BUCKETS))
    metrics: Mapping[str, MetricSums] = field(default_factory=dict)
    ledgers: Mapping[str, Floats] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        """The rows of both."""
        return Tally(
            self.counts + other.counts,
            self.rows + other.rows,
            self.labelled + other.labelled,
            self.late + other.late,
            self.unanswered + other.unanswered,
            _merged(self.metrics, other.metrics),
            {name: self.ledger(name) + other.ledger(name) for name in {**self.ledgers, **other.ledgers}},
        )

    def ledger(self, name: str) -> Floats:
        """The rows of a ledger by bucket."""
        return self.labelled if name == LABELLED else self.ledgers.get(name, _NO_ROWS)

    def arrival(self, metric: Metric) -> ClusteredSums:
        """The share of predictions that have a report which the metric is about."""
        return ClusteredSums(self.rows, self._reported(metric))

    def tail(self, metric: Metric) -> ClusteredSums:
        """The share of such reports that came after the window."""
        late = self.late if metric.ledger == LABELLED else self.ledger(metric.late_ledger)
        return ClusteredSums(self._reported(metric) + late, late)

    def _reported(self, metric: Metric) -> Floats:
        """Rows with a report by bucket; where rows without one count as 0, they are the total of the others' ones."""
        if not metric.of_all_rows:
            return self.ledger(metric.ledger)
        sums = self.metrics.get(metric.name)
        return sums.totals if isinstance(sums, ClusteredSums) else _NO_ROWS

    @property
    def refusal(self) -> ClusteredSums:
        """The share of assigned rows that got no prediction."""
        return ClusteredSums(self.rows + self.unanswered, self.unanswered)


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant in one epoch. Of matured rows `days` has the totals by day and metric, `day_rows` their number.

    `segments` has totals by the name of a segment's ledger and metric, by group of units; their numbers are under "".
    """

    probability: float = 0.0
    live: Tally = field(default_factory=Tally)
    matured: Tally = field(default_factory=Tally)
    days: Mapping[int, Mapping[str, Mapping[int, float]]] = field(default_factory=dict)
    segments: Mapping[str, Mapping[str, Mapping[int, float]]] = field(default_factory=dict)
    day_rows: Mapping[int, int] = field(default_factory=dict)

    def days_of(self, metric: Metric) -> dict[int, Mapping[int, float]]:
        """The totals of one metric by day."""
        name = metric.totals_name
        return {day: totals[name] for day, totals in self.days.items() if name in totals}


Arms = Mapping[tuple[int, str], Arm]
"""By epoch and variant."""


def merged_arms(groups: Sequence[GroupSnapshot]) -> dict[tuple[int, str], Arm]:
    """The arms of one experiment by (epoch, variant). What the workers have folded has matured, and nothing else."""
    arms: dict[tuple[int, str], Arm] = {}
    days: dict[tuple[int, str], dict[int, dict[str, dict[int, float]]]] = {}
    for group in groups:
        known = arms.get((group.epoch, group.variant), Arm())
        matured = [cohort for cohort in group.cohorts if cohort.is_matured]
        negative = group.missing == "negative"
        arms[group.epoch, group.variant] = Arm(
            max(known.probability, group.probability),
            known.live + _tally(group.cohorts, assume_negative=False),
            known.matured + _tally(matured, assume_negative=negative),
            _add_days(days.setdefault((group.epoch, group.variant), {}), group.days),
            _merged_segments(known.segments, matured),
            {**known.day_rows, **{day.day: known.day_rows.get(day.day, 0) + day.rows for day in group.days}},
        )
    return arms


def watermark_of(groups: Sequence[GroupSnapshot]) -> float | None:
    """The time up to which rows have matured in every partition, but for their window; None before the first fold."""
    watermark = min((group.watermark for group in groups), default=-inf)
    return watermark if isfinite(watermark) else None


def _add_days(
    merged: dict[int, dict[str, dict[int, float]]], days: Sequence[DaySnapshot]
) -> dict[int, dict[str, dict[int, float]]]:
    """Add the totals of a partition's days to those of others."""
    for snapshot in days:
        metrics = merged.setdefault(snapshot.day, {})
        for name, totals in snapshot.totals.items():
            sums = metrics.setdefault(name, {})
            for key, value in totals.items():
                sums[key] = sums.get(key, 0.0) + value
    return merged


def _merged_segments(
    known: Mapping[str, Mapping[str, Mapping[int, float]]], cohorts: Sequence[CohortSnapshot]
) -> dict[str, dict[str, dict[int, float]]]:
    merged = {ledger: {name: dict(sums) for name, sums in metrics.items()} for ledger, metrics in known.items()}
    for cohort in cohorts:
        for ledger, snapshot in cohort.ledgers.items():
            if is_segment(ledger):
                metrics = merged.setdefault(ledger, {})
                by_name: dict[str, Mapping[int, float]] = {"": snapshot.rows, **snapshot.totals}
                for name, totals in by_name.items():
                    sums = metrics.setdefault(name, {})
                    for key, value in totals.items():
                        sums[key] = sums.get(key, 0.0) + value
    return merged


def _tally(cohorts: Sequence[CohortSnapshot], *, assume_negative: bool) -> Tally:
    total = Tally()
    for cohort in cohorts:
        metrics = _metrics(cohort.labelled, LABELLED)
        if assume_negative:
            metrics = _merged(metrics, _metrics(cohort.assumed, LABELLED))
        for name, sums in cohort.ledgers.items():
            metrics |= {} if is_segment(name) else _metrics(sums, name)
        total += Tally(
            cohort.counts,
            rows=dense(cohort.rows, BUCKETS),
            labelled=dense(cohort.labelled.rows, BUCKETS),
            late=dense(cohort.late, BUCKETS),
            unanswered=dense(cohort.unanswered, BUCKETS),
            metrics=metrics,
            ledgers={name: dense(sums.rows, BUCKETS) for name, sums in cohort.ledgers.items() if name in _LEDGERS},
        )
    return total


def _metrics(sums: SumsSnapshot, ledger: str) -> dict[str, MetricSums]:
    """The sums of a ledger by metric; a metric that this release lacks is left out."""
    known = [metric for metric in METRICS if metric.ledger == ledger and metric.totals_name in sums.totals]
    return {metric.name: sums_of(metric).read(sums.rows, sums.totals[metric.totals_name]) for metric in known}


def _merged(metrics: Mapping[str, MetricSums], others: Mapping[str, MetricSums]) -> dict[str, MetricSums]:
    both = {name: metrics[name] + others[name] for name in metrics if name in others}
    return {**metrics, **others, **both}
