"""The join of predictions and feedback: what a worker does with each record of a partition, and what a flush writes.

Frames, reports and aggregates are entries of one table. A flush writes the changes since the last flush, in such an
order that a crash may cut it off anywhere: reading on from the last marks completes it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from services.feedback_service.changes import ChangedTable, LocalTable, Write
from services.feedback_service.domain.aggregates import PartitionAggregates, RowChange
from services.feedback_service.domain.clocks import Clocks, Revisions
from services.feedback_service.domain.entries import (
    CHUNK_ROWS,
    FrameEntry,
    decode_frame,
    encode_frame,
    frame_entry,
)
from services.feedback_service.domain.keys import (
    INTENT,
    MARKS,
    NEVER,
    NO_EXPERIMENT,
    SHADOWS,
    WAITING,
    chunk_key,
    expires_at,
    frame_key,
    shadow_key,
    waiting_key,
)
from services.feedback_service.domain.pairs import (
    ShadowRows,
    check_shadows,
    decode_shadows,
    encode_shadows,
    pairs_of,
    shadow_rows,
)
from services.feedback_service.domain.reports import (
    LabelChunk,
    Report,
    WaitingEntry,
    age_of,
    by_chunk,
    decode_chunk,
    decode_waiting,
    encode_chunk,
    encode_waiting,
    is_ahead,
    is_meant,
    possible_report,
)
from services.feedback_service.metrics import UNMATCHED
from shared.events import FRAME_ID_CHARACTERS, FeedbackFrame, PredictionFrame, ShadowBlock
from shared.topics import FEEDBACK, LARGEST_RECORD_BYTES, PREDICTIONS


@dataclass(frozen=True, slots=True)
class SourceOffset:
    """A record's offset in its partition, and when it was sent, in seconds since the Unix epoch."""

    offset: int
    sent_at: float = NEVER


@dataclass(frozen=True, slots=True)
class Limits:
    """How long entries are kept, and how many reports wait.

    Args:
        allowed_lateness_s: how far the clocks of experiments stay behind.
        retention_s: how long a frame and its reports are kept, besides twice its window.
        waiting_s: how long reports wait for their prediction.
        waiting_reports: most reports of a partition that wait.
    """

    allowed_lateness_s: float = 0.0
    retention_s: float = 86_400.0
    waiting_s: float = 86_400.0
    waiting_reports: int = 100_000


class PartitionJoin:
    """One partition's frames, reports and aggregates.

    Args:
        partition: the number of the partition.
        local: its entries as of the last flush.
        limits: how long entries are kept, and how many reports wait.
        clocks: the clocks of the experiments.
    """

    def __init__(self, partition: int, local: LocalTable, limits: Limits, clocks: Clocks) -> None:
        self.table = ChangedTable(local)
        self._limits = limits
        self.aggregates = PartitionAggregates(partition, self.table, clocks)
        self.predictions_end = NEVER
        """The end of the topic `predictions` when Kafka was last asked; infinite before."""
        self.waiting = sum(
            decode_waiting(value).reports
            for key, value in self.table.scan(WAITING)
            if self.table.get(frame_key(_frame_id(key))) is None
        )
        """Reports that wait for their prediction."""

    def record_predictions(self, frame_id: str, frame: PredictionFrame, at: SourceOffset) -> None:
        """Keep a frame and count it, with the reports that came before it. A known frame changes nothing.

        Its shadows make pairs with the rows of frames before it; those that fit no such row are left out.

        Raises:
            ValueError: the frame's rows can't be compared with labels.
        """
        if at.offset <= self.aggregates.marks.predictions:
            return
        check_shadows(frame.shadows)
        if frame.blocks or frame.unanswered or not frame.shadows:
            self._keep_frame(frame_id, frame, at)
        for name in dict.fromkeys(shadow.frame_id for shadow in frame.shadows):
            self._keep_shadows(name, [shadow for shadow in frame.shadows if shadow.frame_id == name], at)
        self.applied(PREDICTIONS.name, at)

    def _keep_frame(self, frame_id: str, frame: PredictionFrame, at: SourceOffset) -> None:
        if not 0 < len(frame_id) <= FRAME_ID_CHARACTERS:
            raise ValueError(f"the record has no header ce_id of up to {FRAME_ID_CHARACTERS} characters")
        known = self._frame(frame_id)
        if known is None:
            entry = frame_entry(frame, at.offset, at.sent_at)
            value = encode_frame(entry, at.sent_at + 2.0 * entry.window_s + self._limits.retention_s)
            if len(value) > LARGEST_RECORD_BYTES:
                raise ValueError(f"the frame's entry has {len(value)} bytes; {LARGEST_RECORD_BYTES} fit in a record")
            self.table.put(frame_key(frame_id), value)
            waiting = self._waiting(frame_id)
            self.waiting -= waiting.reports
            self.aggregates.add_frame(entry, self._chunks(frame_id, waiting.chunks))
        elif known.offset == at.offset:  # read again after a crash
            chunks = sorted({*self._waiting(frame_id).chunks, *range(known.chunks)})
            self.aggregates.add_frame(known, self._chunks(frame_id, chunks))

    def _keep_shadows(self, frame_id: str, shadows: Sequence[ShadowBlock], at: SourceOffset) -> None:
        """Keep what other variants answered to a frame's rows, and count the pairs.

        What is new in a record follows from the frame and the records before it: a record that is read again adds the
        same.
        """
        frame, known = self._frame(frame_id), self._shadows(frame_id)
        if frame is None or frame.offset >= at.offset:
            return
        before = [rows for rows in known if rows.offset < at.offset]
        added: list[ShadowRows] = []
        for shadow in shadows:
            added += shadow_rows(frame, shadow, at.offset, [*before, *added])
        if before + added != known[: len(before) + len(added)]:
            key = frame_key(frame_id)
            expiry = expires_at(key, self.table.get(key) or b"")
            value = encode_shadows(before + added, float(expiry or NEVER))
            if len(value) > LARGEST_RECORD_BYTES:
                return
            self.table.put(shadow_key(frame_id), value)
        chunks = sorted({(rows.first + row) // CHUNK_ROWS for rows in added for row in rows.rows})
        self.aggregates.add_pairs(pairs_of(frame, added), self._chunks(frame_id, chunks))

    def record_feedback(self, frame: FeedbackFrame, at: SourceOffset) -> None:
        """Keep the reports of a frame, and label their rows again. Known reports change nothing.

        Raises:
            ValueError: a report has an impossible row or time; nothing of the frame is kept.
        """
        if at.offset <= self.aggregates.marks.feedback:
            return
        if not all(map(possible_report, frame.events)):
            raise ValueError("a report's frame id, row or time is out of range")
        timely = [event for event in frame.events if is_meant(event) and not is_ahead(event, at.sent_at)]
        self.aggregates.count_once(at.offset, refused=len(frame.events) - len(timely))
        for (frame_id, chunk), reports in by_chunk(timely).items():
            self._report(frame_id, chunk, reports, at)
        self.applied(FEEDBACK.name, at)

    def applied(self, topic: str, at: SourceOffset) -> None:
        """Note that a record has been applied. Records before it that were never read are gone from the topic."""
        self.aggregates.note_applied(topic, at.offset, at.sent_at)

    def _report(self, frame_id: str, chunk_number: int, reports: dict[int, list[Report]], at: SourceOffset) -> None:
        aggregates = self.aggregates
        frame = self._frame(frame_id)
        if frame is None and self._is_caught_up and age_of(frame_id, at.sent_at) > self._limits.waiting_s:
            aggregates.count_once(at.offset, expired=sum(map(len, reports.values())))
            return
        chunk = decode_chunk(self.table.get(chunk_key(frame_id, chunk_number)))
        included = aggregates.includes(aggregates.counts, frame)
        is_fresh = at.offset > chunk.offset
        changes: list[RowChange] = []
        for row, row_reports in reports.items():
            reason = self._refusal(frame, chunk, row, row_reports, at)
            if reason:
                aggregates.count_once(at.offset, **{reason: len(row_reports)})
                continue
            if not included:
                aggregates.count_once(at.offset, unmatched=len(row_reports))
            changes.append((row, chunk.at(row, at.offset - 1), chunk.at(row, at.offset)))
        if changes and is_fresh:
            if not included:  # listed before they are kept, so that a later frame finds all kept reports
                kept = sum(len(reports[row]) for row, _, _ in changes)
                self._wait(frame_id, chunk_number, kept, at, is_unknown=frame is None)
            chunk.offset = at.offset
            self.table.put(chunk_key(frame_id, chunk_number), encode_chunk(chunk))
        if frame is not None:
            pairs = pairs_of(frame, self._shadows(frame_id))
            aggregates.change_reports(frame, at.offset, changes, pairs)

    def _refusal(
        self, frame: FrameEntry | None, chunk: LabelChunk, row: int, reports: Sequence[Report], at: SourceOffset
    ) -> str:
        """Keep a frame's reports on one row, or return the count that they go to instead."""
        is_kept = chunk.has(row, at.offset)
        is_fresh = at.offset > chunk.offset
        if self.aggregates.includes(self.aggregates.counts, frame) or not (is_fresh or is_kept):
            unlabelled = _never_labelled(frame, row)
            if unlabelled:
                return unlabelled
        if is_fresh and frame is None and self._is_caught_up and self.waiting >= self._limits.waiting_reports:
            UNMATCHED.labels("dropped").inc(len(reports))
            return "unmatched"
        if is_fresh:
            is_kept = chunk.add(row, reports, at.offset, self.aggregates.durable.feedback)
        return "" if is_kept else "refused"  # refused: there are too many versions, or there were at the first reading

    @property
    def _is_caught_up(self) -> bool:
        """Whether all predictions are read, so that an unknown frame is gone.

        Before that an unknown frame may be unread, however old: its reports wait, and without a limit.
        """
        return self.aggregates.marks.predictions + 1 >= self.predictions_end

    def _wait(self, frame_id: str, chunk: int, reports: int, at: SourceOffset, *, is_unknown: bool) -> None:
        key = waiting_key(frame_id)
        value = self.table.get(key)
        entry = self._waiting(frame_id)
        expiry = at.sent_at + self._limits.waiting_s if value is None else float(expires_at(key, value) or NEVER)
        chunks = entry.chunks if chunk in entry.chunks else [*entry.chunks, chunk]
        self.table.put(key, encode_waiting(WaitingEntry(chunks, entry.reports + reports), expiry))
        self.waiting += reports if is_unknown else 0

    def _frame(self, frame_id: str) -> FrameEntry | None:
        value = self.table.get(frame_key(frame_id))
        return None if value is None else decode_frame(value)

    def _shadows(self, frame_id: str) -> list[ShadowRows]:
        return decode_shadows(self.table.get(shadow_key(frame_id)))

    def _waiting(self, frame_id: str) -> WaitingEntry:
        value = self.table.get(waiting_key(frame_id))
        return WaitingEntry([], 0) if value is None else decode_waiting(value)

    def _chunks(self, frame_id: str, numbers: Sequence[int]) -> list[LabelChunk]:
        return [decode_chunk(self.table.get(chunk_key(frame_id, number))) for number in numbers]

    def flush(self, expire_until: float = 0.0, expire_limit: int = 0) -> list[Write]:
        """The writes of a flush, in order; none when nothing has changed. Call `flushed` once they are durable.

        Args:
            expire_until: entries that expire by then are deleted, in seconds since the Unix epoch.
            expire_limit: most of them in this flush.
        """
        aggregates = self.aggregates
        if aggregates.settled:
            aggregates.fold()
        deleted = self._expire(expire_until, expire_limit) if aggregates.settled else []
        if not aggregates.is_changed and not self.table.changes and not deleted:
            return []
        intent = aggregates.marks.joined(aggregates.intent)
        aggregates.intent = intent
        aggregates.write()
        return [
            (INTENT, intent.encode()),
            *self.table.changes.items(),
            (MARKS, aggregates.marks.encode()),
            *((key, None) for key in deleted),
        ]

    def flushed(self) -> None:
        """Note that the writes of `flush` are durable and in the local table."""
        self.table.clear()
        self.aggregates.durable = self.aggregates.marks

    def _expire(self, until: float, limit: int) -> list[bytes]:
        """The keys of entries that have expired. They are deleted after the marks, so no replay asks for them."""
        keys: list[bytes] = []
        for key in self.table.local.expired(until, limit):
            if len(keys) >= limit:
                break  # a frame may have thousands of chunks
            if key in self.table.changes:
                continue
            if key.startswith(SHADOWS):
                keys.append(key)
                continue
            frame_id = _frame_id(key)
            frame = self._frame(frame_id)
            chunks = self._waiting(frame_id).chunks
            if key.startswith(WAITING):
                if frame is None:
                    self.waiting -= self._waiting(frame_id).reports
                    UNMATCHED.labels("expired").inc(self._waiting(frame_id).reports)
                chunks = [chunk for chunk in chunks if frame is None or chunk >= frame.chunks]
            elif frame is not None:
                chunks = [chunk for chunk in range(frame.chunks) if self.table.get(chunk_key(frame_id, chunk))]
            # A crash may delete only some: a frame goes before its reports, waiting reports go before their list.
            chunk_keys = [chunk_key(frame_id, chunk) for chunk in chunks]
            keys += [*chunk_keys, key] if key.startswith(WAITING) else [key, *chunk_keys]
        return [key for key in keys if key not in self.table.changes]


class Join:
    """The partitions that this worker owns.

    Args:
        open_table: opens a partition's entries as of its last flush.
        limits: how long entries are kept, and how many reports wait.
        revisions: the newest revisions of experiments; by default none are known.
    """

    def __init__(
        self,
        open_table: Callable[[int], LocalTable],
        limits: Limits | None = None,
        revisions: Revisions | None = None,
    ) -> None:
        self.partitions: dict[int, PartitionJoin] = {}
        self._open_table = open_table
        self._limits = limits or Limits()
        self._revisions: Revisions = {} if revisions is None else revisions

    def forget(self) -> None:
        """Drop all partitions; their next owner reads again what was not flushed."""
        self.partitions = {}

    def assign(self, owned: Iterable[int]) -> None:
        """Own these partitions, as of their tables, and no others."""
        clocks = Clocks(self._revisions, self._limits.allowed_lateness_s)
        self.partitions = {
            partition: PartitionJoin(partition, self._open_table(partition), self._limits, clocks)
            for partition in owned
        }


def _frame_id(key: bytes) -> str:
    """The frame id in the key of a frame or of a waiting entry."""
    return key[2:].decode()


def _never_labelled(frame: FrameEntry | None, row: int) -> str:
    """The count of a report on a row that is never labelled; empty for all others."""
    if frame is None:
        return ""
    for first, block in frame.located():
        if first <= row < first + block.size:
            return "" if block.compared else NO_EXPERIMENT
    return "refused"
