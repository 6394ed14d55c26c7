"""The join of predictions and feedback: what a worker does with each frame, over entries that survive it.

The entries are the only record. The aggregates follow from them, so whatever is read twice, lost between two stores or
recovered elsewhere, the numbers are those of the entries.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.feedback_service.domain.aggregates import PartitionAggregates
from services.feedback_service.domain.entries import (
    FrameEntry,
    LabelChunk,
    Report,
    RowReports,
    by_chunk,
    chunk_key,
    decode_chunk,
    decode_frame,
    encode_entry,
    frame_entry,
    frame_key,
    merged,
    parse_chunk_key,
    parse_frame_key,
    possible_report,
)
from shared.events import FRAME_ID_CHARACTERS, FeedbackFrame, PredictionFrame
from shared.topics import FEEDBACK, LARGEST_RECORD_BYTES, PREDICTIONS

_PAUSE_AFTER = 200
"""Entries of a rebuild between two chances for heartbeats and health checks."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands in its topic."""

    partition: int
    offset: int


class Entries(Protocol):
    """Durable values by key, for the partitions that this worker owns (and perhaps remnants of others)."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        ...

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """All entries as they stand at the call."""
        ...


class Join:
    """Keeps frames and reports, and the aggregates of the partitions that were last rebuilt.

    Args:
        frames: what is kept of each prediction frame.
        labels: what was reported, by frame and chunk of rows.
        allowed_lateness_s: how far an experiment's watermark stays behind its newest prediction.
        on_step: called now and then while a rebuild goes on.
    """

    def __init__(
        self,
        frames: Entries,
        labels: Entries,
        *,
        allowed_lateness_s: float = 0.0,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        self.partitions: dict[int, PartitionAggregates] = {}
        self._frames = frames
        self._labels = labels
        self._allowed_lateness_s = allowed_lateness_s
        self._on_step = on_step
        self._rebuilds = 0

    def owns(self, partition: int) -> bool:
        """Whether records of this partition may be recorded here."""
        return partition in self.partitions

    def forget(self) -> None:
        """Give up all partitions; the next rebuild says which are owned then."""
        self._rebuilds += 1
        self.partitions = {}

    def record_predictions(self, frame_id: str, frame: PredictionFrame, at: Place) -> None:
        """Keep a frame and count it, with what was reported before it came. A frame that is known changes nothing.

        Raises:
            ValueError: the frame is none that can be judged.
        """
        if not 0 < len(frame_id) <= FRAME_ID_CHARACTERS:
            raise ValueError(f"the record has no header ce_id of up to {FRAME_ID_CHARACTERS} characters")
        aggregates = self.partitions[at.partition]
        key = frame_key(at.partition, frame_id)
        if self._frames.get(key) is None:
            entry = frame_entry(frame, at.offset)
            value = encode_entry(entry)
            if len(value) > LARGEST_RECORD_BYTES:
                raise ValueError(f"the frame's entry has {len(value)} bytes; {LARGEST_RECORD_BYTES} fit in a record")
            self._frames.put(key, value)
            chunks = aggregates.waiting_chunks(frame_id)
            aggregates.add_frame(frame_id, entry, self._history(at.partition, frame_id, chunks))
        aggregates.applied(PREDICTIONS.name, at.offset)

    def record_feedback(self, frame: FeedbackFrame, at: Place) -> None:
        """Keep the reports of a frame, and judge the rows again that they are about. Known reports change nothing.

        Raises:
            ValueError: a report is about no possible row, or has no time; nothing of the frame is kept.
        """
        if not all(map(possible_report, frame.events)):
            raise ValueError("a report's frame id, row or time is out of range")
        aggregates = self.partitions[at.partition]
        for (frame_id, chunk), reports in by_chunk(frame.events, at.offset).items():
            self._report(aggregates, frame_id, chunk, reports)
        aggregates.applied(FEEDBACK.name, at.offset)

    def _report(
        self, aggregates: PartitionAggregates, frame_id: str, chunk: int, reports: dict[int, list[Report]]
    ) -> None:
        key = chunk_key(aggregates.partition, frame_id, chunk)
        known = self._chunk(key)
        changed = merged(known, reports)
        if not changed:
            return
        history = {**known, **changed}
        self._labels.put(key, encode_entry(LabelChunk(history)))
        frame = self._frame(aggregates.partition, frame_id)
        if frame is None:
            aggregates.wait(frame_id, chunk, history)
        else:
            before = {row: known[row] for row in changed if row in known}
            aggregates.change_reports(frame, before, changed)

    async def rebuild(self, owned: Iterable[int]) -> None:
        """Make the aggregates of the owned partitions anew from the entries, and no others."""
        self._rebuilds += 1
        mine = self._rebuilds
        fresh = {
            partition: PartitionAggregates(partition, allowed_lateness_s=self._allowed_lateness_s)
            for partition in owned
        }
        await self._rebuild_frames(fresh)
        await self._rebuild_labels(fresh)
        if mine == self._rebuilds:  # else the partitions have changed hands meanwhile, and a newer rebuild runs
            self.partitions = fresh

    async def _rebuild_frames(self, fresh: dict[int, PartitionAggregates]) -> None:
        for number, (key, value) in enumerate(self._frames.items()):
            partition, frame_id = parse_frame_key(key)
            if partition in fresh:
                entry = decode_frame(value)
                history = self._history(partition, frame_id, range(entry.chunks))
                fresh[partition].add_frame(frame_id, entry, history)
                fresh[partition].applied(PREDICTIONS.name, entry.offset)
            if number % _PAUSE_AFTER == 0:
                await self._pause()

    async def _rebuild_labels(self, fresh: dict[int, PartitionAggregates]) -> None:
        for number, (key, value) in enumerate(self._labels.items()):
            partition, frame_id, chunk = parse_chunk_key(key)
            if partition in fresh:
                history = decode_chunk(value).rows
                frame = self._frame(partition, frame_id)
                if frame is None:
                    fresh[partition].wait(frame_id, chunk, history)
                elif chunk >= frame.chunks:
                    fresh[partition].change_reports(frame, {}, history)
                newest = max(reports.newest for reports in history.values())
                fresh[partition].applied(FEEDBACK.name, newest)
            if number % _PAUSE_AFTER == 0:
                await self._pause()

    async def _pause(self) -> None:
        if self._on_step is not None:
            self._on_step()
        await asyncio.sleep(0)

    def _frame(self, partition: int, frame_id: str) -> FrameEntry | None:
        value = self._frames.get(frame_key(partition, frame_id))
        return None if value is None else decode_frame(value)

    def _chunk(self, key: bytes) -> dict[int, RowReports]:
        value = self._labels.get(key)
        return {} if value is None else decode_chunk(value).rows

    def _history(self, partition: int, frame_id: str, chunks: Sequence[int]) -> dict[int, RowReports]:
        history: dict[int, RowReports] = {}
        for chunk in chunks:
            history.update(self._chunk(chunk_key(partition, frame_id, chunk)))
        return history


class InMemoryEntries:
    """Entries in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        return self.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        self.values[key] = value

    def items(self) -> list[tuple[bytes, bytes]]:
        """All entries as they stand at the call."""
        return list(self.values.items())
