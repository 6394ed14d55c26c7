"""The aggregates of one partition, kept up to date as frames and reports come in.

Every cell is a pure function of the two topics up to its own two marks. After a crash, and in whatever order the topics
are read, each cell adds what it does not hold yet and nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence

from services.feedback_service.domain.cell_store import CellStore, Table
from services.feedback_service.domain.cells import Cell
from services.feedback_service.domain.clocks import Clocks, EndsRequest, EventTime
from services.feedback_service.domain.entries import BlockEntry, FrameEntry, row_groups
from services.feedback_service.domain.groups import Experiment, Group, by_id, decode_watermark, encode_watermark
from services.feedback_service.domain.keys import (
    COHORTS,
    COUNTS,
    DAYS,
    EXPERIMENTS,
    INTENT,
    MARKS,
    NO_EXPERIMENT,
    cohort_key,
    day_key,
    experiment_key,
    parse_cohort_key,
    parse_day_key,
    total_key,
    watermark_key,
)
from services.feedback_service.domain.marks import Marks
from services.feedback_service.domain.pairs import Pairs, Served
from services.feedback_service.domain.publishing import PendingUpdates
from services.feedback_service.domain.reports import LabelChunk, RowReports
from services.feedback_service.domain.snapshots import ExperimentUpdate, PartitionStatus

RowChange = tuple[int, RowReports, RowReports]
"""A row of a frame, and its reports before and after a feedback frame."""


class PartitionAggregates:
    """The counts, cells and experiments of one partition.

    Args:
        partition: the number of the partition.
        table: its durable entries.
        clocks: the clocks of the experiments.
    """

    def __init__(self, partition: int, table: Table, clocks: Clocks) -> None:
        self.partition = partition
        self.marks = Marks.decode(table.get(MARKS))
        """The offsets that have been applied; `durable` are those of the last flush."""
        self.durable = self.marks
        self.intent = Marks.decode(table.get(INTENT))
        self.caught_up_at: float | None = None
        """Both topics have been read to their ends of this time."""
        self.begins = Marks()
        """The offsets before the first records that the topics still hold."""
        self._ends: tuple[EndsRequest, Marks] | None = None
        self._table = table
        self._clocks = clocks
        self._cells = CellStore(table)
        self._changed_experiments: set[str] = set()
        self._changed_watermarks: set[str] = set()
        self.experiments: dict[str, Experiment] = {}
        for _, value in table.scan(EXPERIMENTS):
            experiment = Experiment.decode(value)
            experiment.watermark = decode_watermark(table.get(watermark_key(experiment.name)))
            self.experiments[experiment.name] = experiment
        self._list_days()
        self._open_cohorts()
        self._pending = PendingUpdates(partition, self.experiments)

    def _list_days(self) -> None:
        """Look up the days of groups that an older release has stored."""
        unlisted = {group.id: group for group in by_id(self.experiments.values()).values() if group.days is None}
        for group in unlisted.values():
            group.days = {parse_day_key(key)[1] for key, _ in self._table.scan(DAYS + group.id)}

    def _open_cohorts(self) -> None:
        groups = by_id(self.experiments.values())
        for key, _ in self._table.scan(COHORTS):
            group_id, number, day = parse_cohort_key(key)
            group = groups[group_id]  # experiments are written before their cohorts
            if self._is_folded(group, number):
                self._cells.remove(key)  # a crash came between the fold and this
            else:
                group.open.setdefault(number, set()).add(day)

    def request_ends(self, asked_at: float) -> EndsRequest:
        """Kafka is to be asked where the topics end; `note_ends` takes its answer."""
        reached = {
            name: EventTime(experiment.newest, experiment.arrived_at)
            for name, experiment in self.experiments.items()
            if len(experiment.ahead) > 1
        }
        return EndsRequest(asked_at, reached)

    def note_ends(self, request: EndsRequest, predictions: int, feedback: int) -> None:
        """Note where the topics end, as the offsets of the next records. Earlier ends are to be reached first."""
        if self._ends is None:
            self._ends = request, Marks(predictions - 1, feedback - 1)
        self._reach_ends()

    def note_applied(self, topic: str, offset: int, sent_at: float) -> None:
        """Note that a record has been applied. Records before it that were never read are gone from the topic."""
        self.marks = self.marks.after(topic, offset, sent_at)
        self._reach_ends()

    def _reach_ends(self) -> None:
        """Once both topics have been read to their ends of some moment, nothing of that moment will be read again."""
        if self._ends is None:
            return
        request, ends = self._ends
        if not self.marks.joined(self.begins).covers(ends):
            return
        self._ends = None
        self.caught_up_at = request.asked_at
        self.intent = self.marks
        self._clocks.note(self.partition, request.reached)

    @property
    def settled(self) -> bool:
        """Whether all records have been read again that an unfinished flush may have written."""
        return self.marks.covers(self.intent)

    @property
    def counts(self) -> Cell:
        """Counts over all rows and reports of the partition."""
        return self._cell(COUNTS)

    def includes(self, cell: Cell, frame: FrameEntry | Served | Pairs | None) -> bool:
        """Whether the rows of a frame, or of a shadow, are in a cell."""
        return frame is not None and frame.offset <= max(cell.predictions_mark, self.marks.predictions)

    def count_once(self, offset: int, **counts: int) -> None:
        """Count reports of the feedback frame at `offset` that no row keeps."""
        cell = self.counts
        if offset > cell.feedback_mark:
            cell.count(1, counts)
            self._cells.change(COUNTS)

    def add_frame(self, frame: FrameEntry, chunks: Sequence[LabelChunk]) -> None:
        """Count a frame, with all reports on its rows so far."""
        rows = {row: chunk for chunk in chunks for row in chunk.rows}
        if frame.offset > self.counts.predictions_mark:
            self._count_frame(frame, rows)
        self._exclude(frame)
        for block in frame.unanswered:
            self._add_unanswered(frame, block)
        for first, block in frame.located():
            if block.compared and block.size:
                reported = {row - first: chunk for row, chunk in rows.items() if first <= row < first + block.size}
                self._add_block(frame, first, block, reported)

    def _count_frame(self, frame: FrameEntry, rows: Mapping[int, LabelChunk]) -> None:
        cell = self.counts
        mark = max(cell.feedback_mark, self.marks.feedback)
        totals = {row: chunk.at(row, mark).total for row, chunk in rows.items()}
        counts = {"unmatched": -sum(totals.values()), "predictions": 0, NO_EXPERIMENT: 0}
        counts["unanswered"] = sum(block.size for block in frame.unanswered)
        counts["refused"] = sum(total for row, total in totals.items() if row >= frame.size)
        for first, block in frame.located():
            counts["predictions"] += block.size
            if block.compared:
                counts["degraded"] = counts.get("degraded", 0) + int(block.degraded_rows.sum())
                counts["fallbacks"] = counts.get("fallbacks", 0) + block.fallback * block.size
                reported = [
                    (row - first, chunk.at(row, mark))
                    for row, chunk in rows.items()
                    if first <= row < first + block.size
                ]
                cell.count(1, Served(block, frame.offset).label(reported, metrics=False).counts)
            else:
                counts[NO_EXPERIMENT] += sum(n for row, n in totals.items() if first <= row < first + block.size)
        cell.count(1, counts)
        self._cells.change(COUNTS)

    def _exclude(self, frame: FrameEntry) -> None:
        """Count the rows that got a variant of an experiment and don't count in it."""
        for name, rows in frame.excluded.items():
            if self.experiments.setdefault(name, Experiment(name)).exclude(rows, frame.offset):
                self._changed_experiments.add(name)
                self._pending.change(name)

    def add_pairs(self, pairs: Iterable[Pairs], chunks: Sequence[LabelChunk]) -> None:
        """Count pairs, with all reports on their rows so far. Their frame has been counted."""
        rows = {row: chunk for chunk in chunks for row in chunk.rows}
        for pair in pairs:
            self._add_pair(pair, rows)

    def _add_pair(self, pair: Pairs, reported: Mapping[int, LabelChunk]) -> None:
        block, first = pair.block, pair.shadow.first
        experiment = self.experiments.setdefault(block.experiment, Experiment(block.experiment))
        group = experiment.pair_group(pair)
        self._changed_experiments.add(experiment.name)
        self._pending.change(experiment.name)
        for number, day, rows in row_groups(block, group.width_s, pair.shadow.rows):
            agreement = pair.agreement(rows)
            for key, cell in self._targets(group, number, day):
                if pair.offset <= cell.predictions_mark:
                    continue
                cell.add_predictions(block.buckets[list(rows)].tolist(), degraded=0, fallbacks=0)
                mark = max(cell.feedback_mark, self.marks.feedback)
                histories = [
                    (row, reported[first + row].at(first + row, mark) if first + row in reported else RowReports())
                    for row in rows
                ]
                cell.add(1, pair.label(histories))
                cell.add_agreement(agreement)
                self._change_cell(group, key)

    def _add_block(self, frame: FrameEntry, first: int, block: BlockEntry, reported: Mapping[int, LabelChunk]) -> None:
        experiment = self.experiments.setdefault(block.experiment, Experiment(block.experiment))
        group = experiment.add_group(block)
        experiment.advance(block, frame.offset, first, frame.sent_at)
        self._changed_experiments.add(experiment.name)
        self._pending.change(experiment.name)
        buckets, degraded = block.buckets, block.degraded_rows
        for number, day, rows in row_groups(block, group.width_s):
            source = Served(block, frame.offset, experiment.segments)
            served = source.answered(rows)
            for key, cell in self._targets(group, number, day):
                if frame.offset <= cell.predictions_mark:
                    continue
                indexes = list(rows)
                fallbacks = len(indexes) if block.fallback else 0
                cell.add_predictions(
                    buckets[indexes].tolist(), degraded=int(degraded[indexes].sum()), fallbacks=fallbacks
                )
                mark = max(cell.feedback_mark, self.marks.feedback)
                if block.missing != "negative":
                    indexes = [index for index in indexes if index in reported] if reported else []
                histories = [
                    (index, reported[index].at(first + index, mark) if index in reported else RowReports())
                    for index in indexes
                ]
                cell.add(1, source.label(histories), segments=_has_segments(key))
                cell.add_served(served)
                self._change_cell(group, key)

    def _add_unanswered(self, frame: FrameEntry, block: BlockEntry) -> None:
        experiment = self.experiments.setdefault(block.experiment, Experiment(block.experiment))
        group = experiment.add_group(block)
        self._changed_experiments.add(experiment.name)
        self._pending.change(experiment.name)
        buckets = block.buckets
        for number, day, rows in row_groups(block, group.width_s):
            for key, cell in self._targets(group, number, day):
                if frame.offset > cell.predictions_mark:
                    cell.add_unanswered(buckets[list(rows)].tolist())
                    self._change_cell(group, key)

    def change_reports(
        self, frame: FrameEntry, offset: int, changes: Sequence[RowChange], pairs: Iterable[Pairs] = ()
    ) -> None:
        """Label the rows of an experiment again that the feedback frame at `offset` reports on, alone and in pairs.

        After a crash a frame may be kept and not counted yet: reports on rows of no experiment come here as well.
        """
        for first, block in frame.located():
            inside = {row - first: (before, after) for row, before, after in changes if 0 <= row - first < block.size}
            if inside and block.compared:
                experiment = self.experiments.setdefault(block.experiment, Experiment(block.experiment))
                source = Served(block, frame.offset, experiment.segments)
                self._change_rows(experiment.group(block), source, offset, inside)
        for pair in pairs:
            block, rows = pair.block, {pair.shadow.first + row for row in pair.shadow.rows}
            inside = {row - pair.shadow.first: (before, after) for row, before, after in changes if row in rows}
            if inside:
                group = self.experiments.setdefault(block.experiment, Experiment(block.experiment)).pair_group(pair)
                self._change_rows(group, pair, offset, inside)

    def _change_rows(
        self,
        group: Group,
        source: Served | Pairs,
        offset: int,
        changes: Mapping[int, tuple[RowReports, RowReports]],
    ) -> None:
        counted = [] if group.key.paired else [(COUNTS, self.counts)]
        for number, day, rows in row_groups(source.block, group.width_s, list(changes)):
            before = source.label([(index, changes[index][0]) for index in rows])
            after = source.label([(index, changes[index][1]) for index in rows])
            for key, cell in [*self._targets(group, number, day), *counted]:
                if offset <= cell.feedback_mark or not self.includes(cell, source):
                    continue
                if key == COUNTS:
                    cell.count(-1, before.counts)
                    cell.count(1, after.counts)
                    self._cells.change(key)
                else:
                    cell.add(-1, before, segments=_has_segments(key))
                    cell.add(1, after, segments=_has_segments(key))
                    self._change_cell(group, key)

    def _targets(self, group: Group, number: int, day: int) -> list[tuple[bytes, Cell]]:
        """The cells that hold the rows of one cohort and day: the open cohort, or the total and the day."""
        keys = [cohort_key(group.id, number, day)]
        if self._is_folded(group, number):
            keys = [total_key(group.id), day_key(group.id, day)]
        elif self._is_folded_in(day_key(group.id, day), number):
            keys.append(day_key(group.id, day))  # a crash came between the fold of the day and that of the total
        return [(key, self._cell(key)) for key in keys]

    def _is_folded(self, group: Group, number: int) -> bool:
        return self._is_folded_in(total_key(group.id), number)

    def _is_folded_in(self, key: bytes, number: int) -> bool:
        until = self._cell(key).folded_until
        return until is not None and number < until

    def _cell(self, key: bytes) -> Cell:
        return self._cells.get(key, self.marks.predictions, self.marks.feedback)

    def _change_cell(self, group: Group, key: bytes) -> None:
        self._cells.change(key)
        if key.startswith(COHORTS):
            _, number, day = parse_cohort_key(key)
            group.open.setdefault(number, set()).add(day)
            self._pending.change(group.key.experiment, (group.id, number))
        elif key.startswith(DAYS):
            _, day = parse_day_key(key)
            if group.days is not None and day not in group.days:
                group.days.add(day)
                self._changed_experiments.add(group.key.experiment)
            self._pending.change_day(group.key.experiment, group.id, day)
        else:
            self._pending.change(group.key.experiment, (group.id, None))

    def fold(self) -> None:
        """Add the cohorts that have matured to their totals and days."""
        for experiment in self.experiments.values():
            time = self._clocks.time(experiment, self.caught_up_at)
            due = [(group, number) for group in experiment.groups.values() for number in group.due(time)]
            for group, number in due:
                self._fold(group, number)
            # Without cohorts to fold it advances in steps, so that an idle experiment is seldom written.
            if due or time - experiment.watermark >= experiment.cohort_width_s:
                experiment.watermark = max(time, experiment.watermark)
                self._changed_watermarks.add(experiment.name)
                self._pending.change(experiment.name)

    def _fold(self, group: Group, number: int) -> None:
        total_at = total_key(group.id)
        for day in sorted(group.open.pop(number)):
            key = cohort_key(group.id, number, day)
            cohort = self._cell(key)
            for at in (total_at, day_key(group.id, day)):
                cell = self._cell(at)
                if not self._is_folded_in(at, number):
                    cell.absorb(cohort, segments=_has_segments(at))
                if at != total_at:  # the total goes on to the cohort's next day
                    cell.folded_until = number + 1 if cell.folded_until is None else max(number + 1, cell.folded_until)
                self._change_cell(group, at)
            self._cells.remove(key)
        self._pending.change(group.key.experiment, (group.id, number))
        total = self._cell(total_at)
        total.folded_until = number + 1 if total.folded_until is None else max(number + 1, total.folded_until)
        self._pending.change(group.key.experiment, (group.id, None))

    @property
    def is_changed(self) -> bool:
        """Whether a flush has anything to write."""
        is_changed = self._cells.is_changed or bool(self._changed_experiments or self._changed_watermarks)
        return is_changed or self.marks != self.durable

    def write(self) -> None:
        """Put the changes into the table: a watermark last, so that it is never ahead of what was folded."""
        for name in sorted(self._changed_experiments):
            self._table.put(experiment_key(name), self.experiments[name].encode())
        self._changed_experiments = set()
        self._cells.write(self.marks.predictions, self.marks.feedback)
        for name in sorted(self._changed_watermarks):
            self._table.put(watermark_key(name), encode_watermark(self.experiments[name].watermark))
        self._changed_watermarks = set()

    def status(self, now: float) -> PartitionStatus:
        """The offsets that have been applied, and the counts; `now` is stored with them."""
        return PartitionStatus(
            self.partition,
            self.marks.offsets,
            self.counts.published_counts(),
            now,
            self.caught_up_at,
            self.marks.since,
        )

    def updates(self, limit: int) -> list[ExperimentUpdate]:
        """The unpublished changes of at most `limit` experiments; they count as published (see `publish_again`)."""
        names = self._pending.due(limit)
        updates = [self._pending.update(self.experiments[name], self._cell) for name in names]
        for name in names:
            self._pending.published(name)
        self._cells.shrink()
        return updates

    def publish_again(self, names: Iterable[str] | None = None) -> None:
        """Publish these experiments anew, by default all: the store may have lost them."""
        self._pending.change_all(self.experiments if names is None else names)


def _has_segments(key: bytes) -> bool:
    """Whether a cell holds sums by segment: nobody reads those of days."""
    return not key.startswith(DAYS)
