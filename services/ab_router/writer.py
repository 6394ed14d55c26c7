"""Writes rows into the journal, many calls' rows in one frame: those answered, and those lost to an experiment."""

import asyncio
import random
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from services.ab_router.frames import EncodedFrame, FrameRow, encode_frame
from services.ab_router.rows import LostRow, ScoredRow
from services.ab_router.settings import RouterSettings
from shared.clock import Clock
from shared.errors import ServiceError
from shared.ids import PredictionId, new_frame_id
from shared.journal import Journal, JournalRecord
from shared.logs import logger
from shared.microbatch import MicroBatcher
from shared.topics import FRAME_BYTES, LARGEST_RECORD_BYTES, PREDICTIONS, cloud_event_headers, split

PREDICTED = Counter("contender_predictions_total", "Predictions written to the journal", ["model", "variant"])
FALLBACKS = Counter(
    "contender_fallbacks_total", "Predictions answered by another variant than the assigned one", ["model", "variant"]
)
DEGRADED = Counter(
    "contender_degraded_total", "Predictions for which defaults or a fallback value stood in", ["model", "variant"]
)
_LOG = logger(__name__)


@dataclass(slots=True)
class _OpenFrame:
    """A frame that gets further parts: what is written until the publisher closes it goes into one record."""

    id: str
    shard: int
    rows: int = 0
    size_bytes: int = 0


class Writer:
    """Writes the rows of all versions: those answered while one flush runs are the next part of a frame."""

    def __init__(self, journal: Journal, clock: Clock, settings: RouterSettings) -> None:
        self._journal = journal
        self._clock = clock
        self._partitions = settings.partitions
        self._row_limit = settings.batch_limit
        self._frame: _OpenFrame | None = None
        self._notes: set[asyncio.Task[None]] = set()
        self._batcher = MicroBatcher[FrameRow, PredictionId | None](
            self._send,
            senders=settings.senders,
            batch_limit=settings.batch_limit,
            queue_limit=settings.queue_limit,
            weigh=lambda row: row.assigned.size_bytes,
            weight_limit=FRAME_BYTES,
        )

    async def write(self, rows: Sequence[FrameRow]) -> list[PredictionId | None]:
        """The rows' ids; they are on disk when this returns.

        An id is None for a lost row, and for a scored one that is too large for a record. Rows whose caller leaves
        before they are appended are left out.

        Raises:
            JournalFull: nothing was written.
        """
        return await self._batcher.submit_all(rows)

    def note(self, rows: Sequence[LostRow]) -> None:
        """Write lost rows in the background: their callers do not wait for the disk, and a full journal loses them."""
        if rows:
            task = asyncio.create_task(self._note(rows))
            self._notes.add(task)
            task.add_done_callback(self._notes.discard)

    async def drain(self) -> None:
        """Return when everything is written."""
        while self._notes:
            await asyncio.wait(self._notes)
        await self._batcher.drain()

    async def _note(self, rows: Sequence[LostRow]) -> None:
        try:
            await self._batcher.submit_all(rows)
        except ServiceError as error:
            _LOG.debug("unanswered rows are not on record", rows=len(rows), error=str(error))

    async def _send(self, rows: list[FrameRow]) -> Sequence[PredictionId | None]:
        records: list[JournalRecord] = []
        ids: list[PredictionId | None] = []
        known = self._frame
        for part in split(rows, encode_frame):
            if len(part.encoded) > LARGEST_RECORD_BYTES:  # a single row: anything larger was split
                ids.append(None)
                continue
            frame, numbers = self._frame_for(part.encoded), part.encoded.rows
            headers = cloud_event_headers(PREDICTIONS, frame.id)
            key, value = frame.id.encode(), part.encoded.value
            records.append(JournalRecord(PREDICTIONS.name, frame.shard, key, headers, value, is_part=True))
            ids += [None if row is None else PredictionId(frame.id, frame.shard, frame.rows + row) for row in numbers]
            frame.rows += sum(row is not None for row in numbers)
            frame.size_bytes += len(value)
        if records:
            try:
                self._journal.append_all(records)
            except ServiceError:
                self._frame = None  # it counts rows that are not there
                # Nobody would close these while nothing is written. The known frame may have parts that are not durable
                # yet, so only the publisher closes it.
                self._journal.open_keys -= {record.key for record in records} - {known.id.encode() if known else b""}
                raise
            await self._journal.flush()
        written = zip(rows, ids, strict=True)
        _count([row for row, prediction_id in written if prediction_id and isinstance(row, ScoredRow)])
        return ids

    def _frame_for(self, part: EncodedFrame) -> _OpenFrame:
        """The frame that a part goes into: the open one where there is room, else a new one."""
        frame = self._frame
        if (
            frame is None
            or frame.id.encode() not in self._journal.open_keys
            or frame.size_bytes + len(part) > FRAME_BYTES
            or frame.rows + len(part.rows) > self._row_limit
        ):
            shard = random.randrange(self._partitions)  # noqa: S311 - spreads load, keeps no secret
            frame = self._frame = _OpenFrame(new_frame_id(self._clock.now()), shard)
            self._journal.open_keys.add(frame.id.encode())
        return frame


def _count(rows: Sequence[ScoredRow]) -> None:
    kinds: Tally[tuple[str, str, bool, bool]] = Tally()
    for row in rows:
        variant = row.assigned.variant
        is_fallback = row.served_variant != (variant.name if variant else None)
        kinds[row.assigned.model.name, row.assigned.variant_label, row.degraded, is_fallback] += 1
    for (model, name, degraded, is_fallback), number in kinds.items():
        PREDICTED.labels(model, name).inc(number)
        if degraded:
            DEGRADED.labels(model, name).inc(number)
        if is_fallback:
            FALLBACKS.labels(model, name).inc(number)
