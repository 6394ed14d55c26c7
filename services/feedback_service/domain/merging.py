"""Merges the snapshots of the partitions into the sums of each variant and epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from contender.contracts.feedback_service import Counts
from contender.contracts.metrics import METRICS
from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    GroupSnapshot,
    SumsSnapshot,
)
from services.feedback_service.domain.sums import MetricSums, sums_of
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.metric_sums import dense
from services.feedback_service.domain.sums.units import BUCKETS

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tally:
    """Some rows of one variant in one epoch: all of them, or those that have matured.

    `rows` counts predictions by bucket, shape (BUCKETS,). `labelled` and `metrics` are over rows with a label; where a
    missing label means negative, the `metrics` of matured rows hold those as well.
    """

    counts: Counts = field(default_factory=Counts)
    rows: Floats = field(default_factory=lambda: np.zeros(BUCKETS))
    labelled: Floats = field(default_factory=lambda: np.zeros(BUCKETS))
    metrics: Mapping[str, MetricSums] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        """The rows of both."""
        return Tally(
            self.counts + other.counts,
            self.rows + other.rows,
            self.labelled + other.labelled,
            _merged(self.metrics, other.metrics),
        )

    @property
    def arrival(self) -> ClusteredSums:
        """The share of predictions that have a label."""
        return ClusteredSums(self.rows, self.labelled)


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant in one epoch."""

    probability: float = 0.0
    versions: frozenset[str] = frozenset()
    live: Tally = field(default_factory=Tally)
    matured: Tally = field(default_factory=Tally)


def merged_arms(groups: Sequence[GroupSnapshot]) -> dict[tuple[int, str], Arm]:
    """The arms of one experiment by (epoch, variant)."""
    arms: dict[tuple[int, str], Arm] = {}
    for group in groups:
        known = arms.get((group.epoch, group.variant), Arm())
        matured = [cohort for cohort in group.cohorts if cohort.is_matured]
        negative = group.missing == "negative"
        arms[group.epoch, group.variant] = Arm(
            max(known.probability, group.probability),
            known.versions | set(group.versions),
            known.live + _tally(group.cohorts, assume_negative=False),
            known.matured + _tally(matured, assume_negative=negative),
        )
    return arms


def watermark_of(groups: Sequence[GroupSnapshot]) -> float | None:
    """The time up to which the rows of all partitions have matured, but for their window; None before the first."""
    watermark = min((group.watermark for group in groups), default=-inf)
    return watermark if watermark > -inf else None


def _tally(cohorts: Sequence[CohortSnapshot], *, assume_negative: bool) -> Tally:
    total = Tally()
    for cohort in cohorts:
        metrics = _metrics(cohort.labelled)
        if assume_negative:
            metrics = _merged(metrics, _metrics(cohort.assumed))
        rows, labelled = (dense(counts, BUCKETS) for counts in (cohort.rows, cohort.labelled.rows))
        total += Tally(cohort.counts, rows, labelled, metrics)
    return total


def _metrics(sums: SumsSnapshot) -> dict[str, MetricSums]:
    """The sums by metric; a metric that this release lacks is left out."""
    known = [metric for metric in METRICS if metric.totals_name in sums.totals]
    return {metric.name: sums_of(metric).read(sums.rows, sums.totals[metric.totals_name]) for metric in known}


def _merged(metrics: Mapping[str, MetricSums], others: Mapping[str, MetricSums]) -> dict[str, MetricSums]:
    both = {name: metrics[name] + others[name] for name in metrics if name in others}
    return {**metrics, **others, **both}
