"""The reports on the rows of a frame, as of every offset that a replay after a crash may ask for."""

from collections.abc import Sequence
from math import inf, isfinite

import msgspec

from contender.contracts.feedback_service import LARGEST_REPORT
from contender.contracts.metrics import metric_about
from contender.contracts.values import LABEL_KINDS, OUTCOME, FeedbackKind, Outcome
from services.feedback_service.domain.entries import CHUNK_ROWS, storable
from services.feedback_service.domain.keys import with_expiry, without_expiry
from shared.events import FRAME_ID_CHARACTERS, FeedbackGiven
from shared.ids import created_at

ROW_LIMIT = 1_000_000
"""Row numbers that a prediction id can spell."""

HISTORY_LIMIT = 20
"""Different reports of one kind kept of one row: the first ten and the last ten. Nobody corrects an outcome as often,
and a flood pushes out neither the reports before it nor those after it, and no report of another kind."""

VERSIONS_LIMIT = 16
"""Feedback frames about one row between two flushes. With HISTORY_LIMIT and TEXT_BYTES it keeps a chunk, one
record of the changelog, below 8 MB whatever is sent."""


AHEAD_S = 300.0
"""How far ahead of its record an outcome's time or a prediction id may lie, since clocks differ."""


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What was reported on a row, and its time. `outcome` is the value, whatever its kind."""

    given_at: float
    outcome: Outcome
    kind: FeedbackKind = OUTCOME


class RowReports(msgspec.Struct, frozen=True, array_like=True):
    """The reports on one row up to some offset.

    `kept` holds different reports in the order of the topic, each at its last occurrence; `duplicates` counts the
    repetitions, `refused` the reports beyond HISTORY_LIMIT of their kind.
    """

    kept: list[Report] = []
    duplicates: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        """The number of all reports."""
        return len(self.kept) + self.duplicates + self.refused

    def after(self, reports: Sequence[Report]) -> "RowReports":
        """The row's reports with those of another frame."""
        kept, duplicates, refused = list(self.kept), self.duplicates, self.refused
        for report in reports:
            if report in kept:
                kept.remove(report)
                duplicates += 1
            kept.append(report)
            if len(kept) > HISTORY_LIMIT:
                of_kind = [index for index, known in enumerate(kept) if known.kind == report.kind]
                if len(of_kind) > HISTORY_LIMIT:
                    del kept[of_kind[HISTORY_LIMIT // 2]]
                    refused += 1
        return RowReports(kept, duplicates, refused)


class Version(msgspec.Struct, frozen=True, array_like=True):
    """A row's reports after the feedback frame at `offset`."""

    offset: int
    reports: RowReports


class LabelChunk(msgspec.Struct, array_like=True):
    """The reports on up to CHUNK_ROWS neighbouring rows of a frame, up to the feedback frame at `offset`.

    A row has the versions that a replay may ask for: the last one at or below the offset that is durable, and all
    above it.
    """

    rows: dict[int, list[Version]] = {}
    offset: int = -1

    def at(self, row: int, offset: int) -> RowReports:
        """The reports on a row up to a feedback offset."""
        for version in reversed(self.rows.get(row, ())):
            if version.offset <= offset:
                return version.reports
        return NOTHING

    def has(self, row: int, offset: int) -> bool:
        """Whether reports of the feedback frame at `offset` on this row are kept."""
        return any(version.offset == offset for version in self.rows.get(row, ()))

    def add(self, row: int, reports: Sequence[Report], offset: int, durable: int) -> bool:
        """Keep a frame's reports on one row, and return whether they are kept: there may be too many versions."""
        versions = self.rows.get(row, [])
        settled = sum(later.offset <= durable for later in versions[1:])
        versions = versions[settled:]
        if len(versions) >= VERSIONS_LIMIT:
            return False
        newest = versions[-1].reports if versions else NOTHING
        self.rows[row] = [*versions, Version(offset, newest.after(reports))]
        return True


class WaitingEntry(msgspec.Struct, frozen=True, array_like=True):
    """Chunks that wait for their frame, and the number of their reports."""

    chunks: list[int]
    reports: int


def possible_report(event: FeedbackGiven) -> bool:
    """Whether an event can be kept: some frame may have its id and its row, and its time is a number."""
    return 0 < len(event.frame_id) <= FRAME_ID_CHARACTERS and 0 <= event.row < ROW_LIMIT and isfinite(event.given_at)


def is_meant(event: FeedbackGiven) -> bool:
    """Whether the value of an event suits its kind; that of a label is for its model to say."""
    if event.kind in LABEL_KINDS:
        return True
    if isinstance(event.outcome, str):
        return False
    if metric_about(event.kind).of_all_rows:
        return event.outcome in {0, 1}
    return not isinstance(event.outcome, bool) and abs(event.outcome) <= LARGEST_REPORT


def age_of(frame_id: str, sent_at: float) -> float:
    """How old a frame id is for a record that names it; unknown ages are zero."""
    return sent_at - created_at(frame_id, sent_at) if sent_at < inf else 0.0


def is_ahead(event: FeedbackGiven, sent_at: float) -> bool:
    """Whether an event's time, or the id that it names, lies too far ahead of its record."""
    latest = sent_at + AHEAD_S
    return event.given_at > latest or created_at(event.frame_id, -inf) > latest


def by_chunk(events: Sequence[FeedbackGiven]) -> dict[tuple[str, int], dict[int, list[Report]]]:
    """The reports of one feedback frame by (frame id, chunk), then by row."""
    chunks: dict[tuple[str, int], dict[int, list[Report]]] = {}
    for event in events:
        rows = chunks.setdefault((event.frame_id, event.row // CHUNK_ROWS), {})
        rows.setdefault(event.row, []).append(Report(event.given_at, storable(event.outcome), event.kind))
    return chunks


def encode_chunk(chunk: LabelChunk) -> bytes:
    """The value of a chunk's table entry."""
    return msgspec.msgpack.encode(chunk)


def decode_chunk(value: bytes | None) -> LabelChunk:
    """Read the value of a chunk's table entry; a chunk without reports where there is none."""
    return LabelChunk({}) if value is None else _CHUNKS.decode(value)


def encode_waiting(entry: WaitingEntry, expires_at: float) -> bytes:
    """The value of a waiting frame's table entry."""
    return with_expiry(expires_at, msgspec.msgpack.encode(entry))


def decode_waiting(value: bytes) -> WaitingEntry:
    """Read the value of a waiting frame's table entry."""
    return _WAITING.decode(without_expiry(value))


NOTHING = RowReports()
"""A row without reports."""

_CHUNKS = msgspec.msgpack.Decoder(LabelChunk)
_WAITING = msgspec.msgpack.Decoder(WaitingEntry)
