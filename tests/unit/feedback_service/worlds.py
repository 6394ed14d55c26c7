"""Worlds of rows as workers publish them, and looks at them as the results service takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.feedback_service import Counts
from contender.contracts.metrics import LABELLED, metrics_of
from contender.contracts.tasks import task_named
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import Look, results_of
from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    DaySnapshot,
    GroupSnapshot,
    PartitionSnapshot,
    PartitionStatus,
    SumsSnapshot,
)
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.metric_sums import LabelledRows
from services.feedback_service.domain.sums.units import BUCKETS

DAY_S = 86_400.0
DAY = 20_000  # 4 October 2024, a Friday
START = MIDNIGHT = DAY * DAY_S
WINDOW_S = 3600.0
LATE_ENOUGH = START + 400 * DAY_S


@dataclass
class Rows:
    """Matured rows; `outcome` is NaN where there is no label, `arm` is an index into the variants."""

    arm: np.ndarray
    score: np.ndarray
    outcome: np.ndarray
    bucket: np.ndarray
    day: np.ndarray | None = None
    late: np.ndarray | None = None

    def first(self, n: int) -> "Rows":
        """The first n rows."""
        cut = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Rows(**{name: None if array is None else array[:n] for name, array in cut.items()})

    def of(self, mask: np.ndarray) -> "Rows":
        """The rows that a mask picks."""
        cut = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Rows(**{name: None if array is None else array[mask] for name, array in cut.items()})


def rows(rng: np.random.Generator, n: int, scores: Sequence[float] = (0.25, 0.25), rate: float = 0.25, **given) -> Rows:
    """Rows of units of their own, each with the score of its variant; every outcome is known."""
    arm = rng.integers(0, len(scores), n)
    outcome = (rng.random(n) < rate).astype(float)
    return Rows(arm, np.array(scores)[arm], outcome, rng.integers(0, BUCKETS, n), **given)


def _sums(task: str, chosen: Rows, outcome: np.ndarray) -> SumsSnapshot:
    if not len(chosen.arm):
        return SumsSnapshot()
    labelled = LabelledRows(task, outcome, chosen.score, None, chosen.bucket.astype(np.uint8))
    totals = {}
    for metric in (known for known in metrics_of(task_named(task), LABELLED) if not known.needs):
        keys, values = sums_of(metric).additions(metric, labelled)
        added = np.bincount(keys, weights=values)
        totals[metric.name] = {int(key): float(added[key]) for key in np.unique(keys)}
    return SumsSnapshot(_by_bucket(chosen.bucket), totals)


def _by_bucket(buckets: np.ndarray) -> dict[int, int]:
    counts = np.bincount(buckets, minlength=BUCKETS)
    return {int(bucket): int(counts[bucket]) for bucket in np.flatnonzero(counts)}


@dataclass
class World:
    """An experiment, and what is remembered of it."""

    variants: Sequence[str] = ("champion", "challenger")
    task: str = "binary"
    missing: str = "excluded"
    window_s: float = WINDOW_S
    clock: str = "event"
    declared: dict[str, object] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)

    @property
    def revision(self) -> ExperimentRevision:
        """The experiment as its owner declared it; without a cycle where nothing else is said."""
        given = {
            "name": "e",
            "model": "m",
            "revision": 1,
            "epoch": 1,
            "status": "running",
            "seed": "s",
            "champion": self.variants[0],
            "variants": [VariantAllocation(name, f"v-{name}", 1.0 / len(self.variants)) for name in self.variants],
            "metric": "log_loss",
            "window_s": self.window_s,
            "missing": self.missing,
            "clock": self.clock,
            "changed_at": START,
            "started_at": START,
            "cycle_days": 0,
            "cycle_reason": "rows are independent",
        }
        return ExperimentRevision(**{**given, **self.declared})

    def snapshot(
        self,
        matured: Rows,
        watermark: float = LATE_ENOUGH,
        unanswered: Sequence[np.ndarray] | None = None,
        waiting: int = 0,
    ) -> PartitionSnapshot:
        """What workers have published of matured rows, and of rows whose window has not passed."""
        groups = []
        for index, name in enumerate(self.variants):
            of = matured.of(matured.arm == index)
            cohorts = [self._cohort(of, None if unanswered is None else unanswered[index], watermark)]
            if waiting:
                open_rows = CohortSnapshot(
                    watermark + 60.0, Counts(predictions=waiting), {0: waiting}, SumsSnapshot(), SumsSnapshot()
                )
                cohorts.append(open_rows)
            groups.append(
                GroupSnapshot(
                    experiment="e",
                    epoch=1,
                    variant=name,
                    task=self.task,
                    window_s=self.window_s,
                    missing=self.missing,
                    model="m",
                    versions=[f"v-{name}"],
                    probability=1.0 / len(self.variants),
                    watermark=watermark,
                    cohorts=cohorts,
                    days=self._days(of),
                    clock=self.clock,
                )
            )
        return PartitionSnapshot(PartitionStatus(0, {"predictions": 7, "feedback": 5}, Counts(), START), groups)

    def _cohort(self, of: Rows, unanswered: np.ndarray | None, watermark: float) -> CohortSnapshot:
        labelled = ~np.isnan(of.outcome)
        late = ~labelled & of.late if of.late is not None else np.zeros(len(labelled), bool)
        missing = of.of(~labelled)
        negative = self.missing == "negative" and self.task == "binary"
        return CohortSnapshot(
            watermark,
            Counts(
                predictions=len(of.arm),
                labelled=int(labelled.sum()),
                late=int(late.sum()),
                unanswered=0 if unanswered is None else len(unanswered),
            ),
            _by_bucket(of.bucket),
            _sums(self.task, of.of(labelled), of.outcome[labelled]),
            _sums(self.task, missing, np.zeros(len(missing.arm))) if negative else SumsSnapshot(),
            is_matured=True,
            unanswered={} if unanswered is None else _by_bucket(unanswered),
            late=_by_bucket(of.bucket[late]),
        )

    def _days(self, of: Rows) -> list[DaySnapshot]:
        if of.day is None:
            return []
        days = []
        for day in np.unique(of.day):
            rows_of = of.of(of.day == day)
            chosen = rows_of.of(~np.isnan(rows_of.outcome))
            sums = _sums(self.task, chosen, chosen.outcome)
            totals = {
                metric.name: sums_of(metric).day_totals(sums.rows, sums.totals[metric.name])
                for metric in metrics_of(task_named(self.task), LABELLED)
                if metric.name in sums.totals
            }
            days.append(DaySnapshot(int(day), len(rows_of.arm), totals))
        return days

    def look(self, matured: Rows, now: float = LATE_ENOUGH, **seen) -> Look:
        """Look at the rows, and remember the look."""
        return self.look_at([self.snapshot(matured, **seen)], now)

    def look_at(self, snapshots: Sequence[PartitionSnapshot], now: float = LATE_ENOUGH) -> Look:
        """Look at what was published, and remember the look."""
        look = results_of("e", self.revision, snapshots, now, self.memory)
        assert look is not None
        self.memory = msgspec.msgpack.decode(msgspec.msgpack.encode(look.memory), type=Memory)
        return look
