"""The join's aggregates of one partition: derived from frames and reports, and never a record of their own.

Whatever the order in which frames and reports become known, and however often the same ones are offered, the same
frames and reports give the same numbers: a change of a row takes back the row's old contribution and adds the new.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, inf

import numpy as np

from services.feedback_service.domain.cohorts import Cohort
from services.feedback_service.domain.entries import NOTHING, BlockEntry, FrameEntry, RowReports
from services.feedback_service.domain.judging import judge_row
from services.feedback_service.domain.losses import LOSSES, metrics_of
from services.feedback_service.domain.snapshots import Counts, GroupSnapshot, PartitionSnapshot
from shared.events import Missing, Task

COHORTS_PER_WINDOW = 24
SHORTEST_COHORT_S = 60.0

History = Mapping[int, RowReports]


@dataclass(frozen=True, slots=True, order=True)
class GroupKey:
    """What is summed up together: a variant in an epoch. The other fields are the experiment's own."""

    experiment: str
    epoch: int
    variant: str
    task: Task
    window_s: float
    missing: Missing


@dataclass(slots=True)
class Group:
    """One variant of an experiment in one epoch: open cohorts by number, and those that have matured as one."""

    key: GroupKey
    model: str
    versions: set[str] = field(default_factory=set)
    probability: float = 0.0
    matured: Cohort = field(default_factory=Cohort)
    open: dict[int, Cohort] = field(default_factory=dict)
    matured_until: int | None = None
    newest: float = -inf

    @property
    def width_s(self) -> float:
        """The stretch of prediction time that a cohort covers."""
        return max(SHORTEST_COHORT_S, self.key.window_s / COHORTS_PER_WINDOW)

    def cohort(self, time: float) -> Cohort:
        """The cohort of a prediction made at `time`."""
        number = floor(time / self.width_s)
        if self.matured_until is not None and number < self.matured_until:
            return self.matured
        return self.open.setdefault(number, Cohort())

    def matures_at(self, number: int) -> float:
        """When the last possible row of a cohort matures."""
        return (number + 1) * self.width_s + self.key.window_s

    def fold(self, watermark: float) -> None:
        """Put the cohorts that have matured together."""
        for number in sorted(number for number in self.open if self.matures_at(number) <= watermark):
            self.matured.absorb(self.open.pop(number))
            self.matured_until = max(number + 1, self.matured_until or number + 1)

    def snapshot(self, watermark: float) -> GroupSnapshot:
        """The group as it is published, with its experiment's watermark in this partition."""
        key = self.key
        cohorts = [cohort.snapshot(self.matures_at(number)) for number, cohort in sorted(self.open.items())]
        if self.matured_until is not None:
            cohorts.insert(0, self.matured.snapshot(self.matures_at(self.matured_until - 1)))
        return GroupSnapshot(
            experiment=key.experiment,
            epoch=key.epoch,
            variant=key.variant,
            task=key.task,
            window_s=key.window_s,
            missing=key.missing,
            model=self.model,
            versions=sorted(self.versions),
            probability=self.probability,
            watermark=watermark,
            cohorts=cohorts,
        )


class PartitionAggregates:
    """Everything that is known of one partition, kept up to date as frames and reports come in.

    Args:
        partition: the number of the partition.
        allowed_lateness_s: how far an experiment's watermark stays behind its newest prediction.
    """

    def __init__(self, partition: int, *, allowed_lateness_s: float = 0.0) -> None:
        self.partition = partition
        self.offsets: dict[str, int] = {}
        self._allowed_lateness_s = allowed_lateness_s
        self._groups: dict[GroupKey, Group] = {}
        self._elsewhere: Counter[str] = Counter()
        self._waiting: dict[str, dict[int, Counter[str]]] = {}

    def applied(self, topic: str, offset: int) -> None:
        """Note that a record of a topic is accounted for."""
        self.offsets[topic] = max(offset, self.offsets.get(topic, -1))

    def wait(self, frame_id: str, chunk: int, history: History) -> None:
        """Note the reports of a chunk whose frame is not known yet, instead of what was noted of it before."""
        counts: Counter[str] = Counter()
        for reports in history.values():
            different, duplicates = reports.counted()
            counts.update(unmatched=different, duplicates=duplicates)
        self._waiting.setdefault(frame_id, {})[chunk] = counts

    def waiting_chunks(self, frame_id: str) -> list[int]:
        """The chunks of a frame that is not known yet."""
        return sorted(self._waiting.get(frame_id, {}))

    def add_frame(self, frame_id: str, frame: FrameEntry, history: History) -> None:
        """Count a frame that was not known, with everything reported for its rows so far."""
        self._waiting.pop(frame_id, None)
        first = 0
        for block in frame.blocks:
            self._add_predictions(block)
            rows = range(first, first + block.size)
            self._judge(1, block, [(row - first, history.get(row, NOTHING)) for row in rows])
            first += block.size
        self._refuse_beyond(1, frame, history)

    def change_reports(self, frame: FrameEntry, before: History, after: History) -> None:
        """Judge again the rows of a known frame whose reports have changed; both histories hold these rows only."""
        rows = sorted(after)
        for block, located in frame.located(rows):
            self._judge(-1, block, [(index, before.get(row, NOTHING)) for row, index in located])
            self._judge(1, block, [(index, after[row]) for row, index in located])
        self._refuse_beyond(-1, frame, before)
        self._refuse_beyond(1, frame, after)

    def snapshot(self, now: float) -> PartitionSnapshot:
        """The partition as it is published; `now` is only a note of when."""
        watermarks: dict[str, float] = {}
        for key, group in self._groups.items():
            reached = group.newest - self._allowed_lateness_s
            watermarks[key.experiment] = max(reached, watermarks.get(key.experiment, -inf))
        for key, group in self._groups.items():
            group.fold(watermarks[key.experiment])
        groups = [self._groups[key].snapshot(watermarks[key.experiment]) for key in sorted(self._groups)]
        counts = sum((cohort.counts for group in groups for cohort in group.cohorts), self._counts_elsewhere())
        return PartitionSnapshot(self.partition, dict(self.offsets), counts, groups, now)

    def _counts_elsewhere(self) -> Counts:
        total = Counter(self._elsewhere)
        for chunks in self._waiting.values():
            for counts in chunks.values():
                total.update(counts)
        return Counts(**total)

    def _add_predictions(self, block: BlockEntry) -> None:
        if not block.compared:
            self._elsewhere["predictions"] += block.size
            return
        group = self._group(block)
        group.versions.add(block.version)
        group.probability = max(group.probability, block.probability)
        group.newest = max(group.newest, *block.time) if block.time else group.newest
        for index, (time, bucket) in enumerate(zip(block.time, block.bucket, strict=True)):
            degraded = bool(block.degraded) and block.degraded[index]
            group.cohort(time).add_prediction(bucket, degraded=degraded, fallback=block.fallback)

    def _judge(self, sign: int, block: BlockEntry, rows: Sequence[tuple[int, RowReports]]) -> None:
        if not block.compared:
            for _, history in rows:
                self._count_elsewhere(sign, "outside", history)
            return
        group = self._group(block)
        labelled: list[tuple[int, float]] = []
        assumed: list[tuple[int, float]] = []
        negative = block.missing == "negative" and block.task == "binary"
        for index, history in rows:
            judgement = judge_row(block, index, history)
            group.cohort(block.time[index]).add_judgement(sign, judgement)
            if judgement.value is not None:
                labelled.append((index, judgement.value))
            elif negative:
                assumed.append((index, 0.0))
        _add_losses(sign, group, block, labelled, assumed=False)
        _add_losses(sign, group, block, assumed, assumed=True)

    def _refuse_beyond(self, sign: int, frame: FrameEntry, history: History) -> None:
        for row, reports in history.items():
            if row >= frame.size:
                self._count_elsewhere(sign, "refused", reports)

    def _count_elsewhere(self, sign: int, name: str, reports: RowReports) -> None:
        different, duplicates = reports.counted()
        self._elsewhere[name] += sign * different
        self._elsewhere["duplicates"] += sign * duplicates

    def _group(self, block: BlockEntry) -> Group:
        key = GroupKey(block.experiment, block.epoch, block.variant, block.task, block.window_s, block.missing)
        return self._groups.setdefault(key, Group(key, block.model))


def _add_losses(
    sign: int, group: Group, block: BlockEntry, rows: Sequence[tuple[int, float]], *, assumed: bool
) -> None:
    if not rows:
        return
    outcomes = np.array([value for _, value in rows])
    scores = np.array([block.score[index] for index, _ in rows], dtype=np.float64)
    by_metric = {name: LOSSES[name].functions[block.task](outcomes, scores).tolist() for name in metrics_of(block.task)}
    for position, (index, value) in enumerate(rows):
        cohort = group.cohort(block.time[index])
        sums = cohort.assumed if assumed else cohort.labelled
        sums.add(sign, block.bucket[index], {name: values[position] for name, values in by_metric.items()})
        if block.task == "binary":
            sums.count_score(sign, float(scores[position]), positive=value == 1.0)
