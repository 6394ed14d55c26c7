"""From snapshots of partitions to the statistics' own sums, per variant and epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contender.contracts.feedback_service import Counts
from services.feedback_service.domain.histograms import BINS, ScoreHistogram
from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    GroupSnapshot,
    MetricSums,
)
from services.feedback_service.domain.sums import BUCKETS, ClusteredSums

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
    metrics: Mapping[str, ClusteredSums] = field(default_factory=dict)
    scores: ScoreHistogram = field(default_factory=ScoreHistogram)

    def __add__(self, other: "Tally") -> "Tally":
        """The rows of both."""
        names = [*self.metrics, *(name for name in other.metrics if name not in self.metrics)]
        nothing = ClusteredSums()
        return Tally(
            self.counts + other.counts,
            self.rows + other.rows,
            self.labelled + other.labelled,
            {name: self.metrics.get(name, nothing) + other.metrics.get(name, nothing) for name in names},
            self.scores + other.scores,
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


def merged_arms(groups: Sequence[GroupSnapshot], watermark: float) -> dict[tuple[int, str], Arm]:
    """The arms of one experiment by (epoch, variant); a cohort has matured when the watermark has reached its time."""
    arms: dict[tuple[int, str], Arm] = {}
    for group in groups:
        known = arms.get((group.epoch, group.variant), Arm())
        matured = [cohort for cohort in group.cohorts if cohort.matures_at <= watermark]
        negative = group.missing == "negative"
        arms[group.epoch, group.variant] = Arm(
            max(known.probability, group.probability),
            known.versions | set(group.versions),
            known.live + _tally(group.cohorts, assume_negative=False),
            known.matured + _tally(matured, assume_negative=negative),
        )
    return arms


def watermark_of(
    groups: Sequence[GroupSnapshot], caught_up_at: float | None, stopped_at: float | None, now: float
) -> float | None:
    """How far an experiment's time has come; None before its first prediction.

    The newest prediction of any partition and not the oldest of the newest, since one set of routers writes to all
    partitions: one without predictions is idle, not behind, and must not keep the others from maturing. While traffic
    pauses the time since the newest prediction arrived moves it on, as far as both topics are known to have been read
    to their end: labels that were not read are no missing labels. Once the experiment has stopped no prediction of it
    comes any more.
    """
    known = max((group.watermark for group in groups), default=None)
    if known is None:
        return None
    arrivals = [group.arrived_at for group in groups if group.watermark == known and group.arrived_at is not None]
    idle_s = max(0.0, min(now, caught_up_at) - min(arrivals)) if arrivals and caught_up_at is not None else 0.0
    stopped_s = max(0.0, now - stopped_at) if stopped_at is not None else 0.0
    return known + max(idle_s, stopped_s)


def _tally(cohorts: Sequence[CohortSnapshot], *, assume_negative: bool) -> Tally:
    total = Tally()
    for cohort in cohorts:
        labelled = _metric_tally(cohort.labelled)
        judged = labelled + _metric_tally(cohort.assumed) if assume_negative else labelled
        rows = _dense(cohort.rows, BUCKETS)
        total += Tally(cohort.counts, rows, _dense(cohort.labelled.rows, BUCKETS), judged.metrics, judged.scores)
    return total


def _metric_tally(sums: MetricSums) -> Tally:
    rows = _dense(sums.rows, BUCKETS)
    metrics = {name: ClusteredSums(rows, _dense(totals, BUCKETS)) for name, totals in sums.totals.items()}
    return Tally(metrics=metrics, scores=ScoreHistogram(_dense(sums.negatives, BINS), _dense(sums.positives, BINS)))


def _dense(sparse: Mapping[int, float], length: int) -> Floats:
    array = np.zeros(length)
    if sparse:
        array[list(sparse)] = list(sparse.values())
    return array
