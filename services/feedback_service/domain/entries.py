"""What the join keeps: of a prediction frame what judging needs, and of each row everything that was reported."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from math import inf, isfinite
from typing import TypeVar

import msgspec

from services.feedback_service.domain.sums import unit_buckets
from shared.events import (
    FRAME_ID_CHARACTERS,
    FeedbackGiven,
    Missing,
    Outcome,
    PredictionBlock,
    PredictionFrame,
    Scalar,
    Task,
)

CHUNK_ROWS = 64
"""Rows whose reports share a table entry: a report rewrites this many at most, however large its frame is."""

HISTORY_LIMIT = 20
"""Different reports kept of one row. Nobody corrects an outcome as often, and with TEXT_CHARACTERS it keeps a chunk,
one record of the changelog, below 600 kB whatever is sent."""

TEXT_CHARACTERS = 100
"""Longer texts are kept as their hash, classes and outcomes alike, so that the one still equals the other."""

ROW_LIMIT = 1_000_000
"""Row numbers that a prediction id can spell."""

_BINARY_CLASSES = 2
_INT64 = 2**63
_ROUNDING = 1e-3  # of a model that computes in half precision

ScalarT = TypeVar("ScalarT", Outcome, Scalar)


class BlockEntry(msgspec.Struct, frozen=True, array_like=True):
    """What judging needs of a PredictionBlock. The lists have one entry per row; `bucket` stands for the unit.

    A block without experiment or variant keeps its size only.
    """

    size: int
    experiment: str = ""
    epoch: int = 0
    variant: str = ""
    model: str = ""
    version: str = ""
    task: Task = "binary"
    classes: list[Scalar] = []
    window_s: float = 0.0
    missing: Missing = "excluded"
    probability: float = 1.0
    fallback: bool = False
    bucket: list[int] = []
    time: list[float] = []
    score: Sequence[float | list[float]] = []
    degraded: list[bool] = []

    @property
    def compared(self) -> bool:
        """Whether the rows belong to a variant of an experiment."""
        return bool(self.experiment)


class FrameEntry(msgspec.Struct, frozen=True, array_like=True):
    """A prediction frame as the join keeps it, with its offset in the topic `predictions`."""

    offset: int
    blocks: list[BlockEntry]

    @property
    def size(self) -> int:
        """Rows of all blocks."""
        return sum(block.size for block in self.blocks)

    @property
    def chunks(self) -> int:
        """Chunks that the rows fill."""
        return -(-self.size // CHUNK_ROWS)

    def located(self, rows: Sequence[int]) -> Iterator[tuple[BlockEntry, list[tuple[int, int]]]]:
        """The blocks that hold `rows`, each with pairs (row of the frame, row of the block)."""
        first = 0
        for block in self.blocks:
            found = [(row, row - first) for row in rows if first <= row < first + block.size]
            if found:
                yield block, found
            first += block.size


class Report(msgspec.Struct, frozen=True, array_like=True):
    """One outcome reported for one row: where in the topic `feedback` it stands, when it was given, and what it is."""

    offset: int
    index: int
    given_at: float
    outcome: Outcome

    @property
    def place(self) -> tuple[int, int]:
        """What no other report of the partition has, in the order of the topic."""
        return self.offset, self.index


class RowReports(msgspec.Struct, frozen=True, array_like=True):
    """What was reported for one row: the reports kept, in the order of the topic, and how many there were besides.

    As long as there are no more than HISTORY_LIMIT all are kept. Then those go that equal a later one and are counted
    as `duplicates`, and what differs from all that are kept is counted as `refused`. Every report up to the place
    (`offset`, `index`) is accounted for, since the topic's order is that of the calls: one that is read again is known.
    """

    kept: list[Report] = []
    duplicates: int = 0
    refused: int = 0
    offset: int = -1
    index: int = -1

    @property
    def newest(self) -> int:
        """The highest offset of a report."""
        return max([self.offset, *(report.offset for report in self.kept)])

    def knows(self, report: Report) -> bool:
        """Whether a report of this offset and index is accounted for."""
        return report.place <= (self.offset, self.index) or any(one.place == report.place for one in self.kept)

    def distinct(self) -> list[Report]:
        """The reports kept that differ in outcome or time, of equal ones the last, in the order of the topic."""
        last = {(report.given_at, report.outcome): report for report in self.kept}
        return sorted(last.values(), key=lambda report: report.place)

    def counted(self) -> tuple[int, int]:
        """How many reports differ from each other, as far as can be told, and how many are duplicates."""
        different = len(self.distinct())
        return different + self.refused, self.duplicates + len(self.kept) - different

    def after(self, report: Report) -> "RowReports":
        """The row's reports with one more, which must not be known."""
        kept = sorted([*self.kept, report], key=lambda one: one.place)
        more = RowReports(kept, self.duplicates, self.refused, self.offset, self.index)
        if len(kept) <= HISTORY_LIMIT:
            return more
        different = more.distinct()
        return RowReports(
            different[:HISTORY_LIMIT],
            self.duplicates + len(kept) - len(different),
            self.refused + len(different[HISTORY_LIMIT:]),
            *kept[-1].place,
        )


class LabelChunk(msgspec.Struct, frozen=True, array_like=True):
    """Everything reported for up to CHUNK_ROWS neighbouring rows of one frame."""

    rows: dict[int, RowReports]


def frame_entry(frame: PredictionFrame, offset: int) -> FrameEntry:
    """What the join keeps of a frame.

    Raises:
        ValueError: the lists of a block are not one entry per row, or its scores do not fit its task.
    """
    if not any(len(block) for block in frame.blocks):
        raise ValueError("the frame has no rows")
    for number, block in enumerate(frame.blocks):
        _check(number, block)
    return FrameEntry(offset, [_block_entry(block) for block in frame.blocks])


def _block_entry(block: PredictionBlock) -> BlockEntry:
    if block.experiment is None or block.variant is None:
        return BlockEntry(len(block))
    return BlockEntry(
        size=len(block),
        experiment=block.experiment,
        epoch=block.epoch,
        variant=block.variant,
        model=block.model,
        version=block.version,
        task=block.task,
        classes=[_storable(label) for label in block.classes],
        window_s=block.window_s,
        missing=block.missing,
        probability=block.assignment_probability,
        fallback=block.served_variant != block.variant,
        bucket=unit_buckets(block.unit).tolist(),
        time=block.time,
        score=block.score,
        degraded=block.degraded,
    )


def _check(number: int, block: PredictionBlock) -> None:
    rows = len(block)
    named = {"time": block.time, "score": block.score, "degraded": block.degraded or block.unit}
    for name, values in named.items():
        if len(values) != rows:
            raise ValueError(f"blocks[{number}].{name} has {len(values)} entries for {rows} rows")
    _check_ranges(number, block)
    classes = len(block.classes)
    widths = {len(score) if isinstance(score, list) else 0 for score in block.score}
    if block.task == "multiclass":
        if len(widths - {classes or max(widths, default=0)}) or 0 in widths:
            raise ValueError(f"blocks[{number}].score must have one probability per class")
    elif widths - {0}:
        raise ValueError(f"blocks[{number}].score must be one number per row")
    if block.task != "regression" and not all(map(_is_probability, chain.from_iterable(map(_listed, block.score)))):
        raise ValueError(f"blocks[{number}].score must hold probabilities")
    if block.task == "binary" and classes not in {0, _BINARY_CLASSES}:
        raise ValueError(f"blocks[{number}].classes must be two, not {classes}")


def _check_ranges(number: int, block: PredictionBlock) -> None:
    integers = [label for label in block.classes if isinstance(label, int)]
    wrong = {
        "window_s": block.window_s < 0.0,
        "epoch": not 0 <= block.epoch < _INT64,
        "assignment_probability": not 0.0 <= block.assignment_probability <= 1.0,
        "classes": not all(-_INT64 <= label < _INT64 for label in integers),
    }
    if any(wrong.values()):
        names = ", ".join(name for name, is_wrong in wrong.items() if is_wrong)
        raise ValueError(f"blocks[{number}] is out of range in {names}")


def _listed(score: float | list[float]) -> list[float]:
    return score if isinstance(score, list) else [score]


def _is_probability(score: float) -> bool:
    return -_ROUNDING <= score <= 1.0 + _ROUNDING


def frame_key(partition: int, frame_id: str) -> bytes:
    """The key of a frame in the table `frames`; the partition tells what an owner of other partitions left behind."""
    return f"{partition}/{frame_id}".encode()


def parse_frame_key(key: bytes) -> tuple[int, str]:
    """The partition and the frame id in a key."""
    partition, _, frame_id = key.decode().partition("/")
    return int(partition), frame_id


def chunk_key(partition: int, frame_id: str, chunk: int) -> bytes:
    """The key of a chunk in the table `labels`."""
    return f"{partition}/{frame_id}/{chunk}".encode()


def parse_chunk_key(key: bytes) -> tuple[int, str, int]:
    """The partition, the frame id and the number of the chunk in a key."""
    partition, _, rest = key.decode().partition("/")
    frame_id, _, chunk = rest.rpartition("/")
    return int(partition), frame_id, int(chunk)


def partition_of(key: bytes) -> int:
    """The partition in a key of either table."""
    return int(key.partition(b"/")[0])


def by_chunk(events: Sequence[FeedbackGiven], offset: int) -> dict[tuple[str, int], dict[int, list[Report]]]:
    """The reports of one feedback frame by (frame id, chunk), then by row."""
    found: dict[tuple[str, int], dict[int, list[Report]]] = {}
    for index, event in enumerate(events):
        rows = found.setdefault((event.frame_id, event.row // CHUNK_ROWS), {})
        report = Report(offset, index, event.given_at, _storable(event.outcome))
        rows.setdefault(event.row, []).append(report)
    return found


def _storable(value: ScalarT) -> ScalarT:
    """A value of few bytes: a long text as its hash, an integer beyond 64 bits as a float."""
    if isinstance(value, str) and len(value) > TEXT_CHARACTERS:
        return "sha256:" + hashlib.sha256(value.encode()).hexdigest()
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return float(value) if abs(value) <= sys.float_info.max else inf
    return value


def merged(known: Mapping[int, RowReports], new: Mapping[int, list[Report]]) -> dict[int, RowReports]:
    """The rows of `new` whose reports are not all known, each with everything reported; the others are left out.

    A report is known by its offset and index, so one that is read again changes nothing. Reports are taken one by one,
    so it makes no difference which of them came in one frame.
    """
    changed: dict[int, RowReports] = {}
    for row, reports in new.items():
        before = after = known.get(row, NOTHING)
        for report in reports:
            if not after.knows(report):
                after = after.after(report)
        if after is not before:
            changed[row] = after
    return changed


@lru_cache(maxsize=1024)
def decode_frame(value: bytes) -> FrameEntry:
    """Read an entry of the table `frames`. Cached, since a frame's labels tend to come together."""
    return _FRAMES.decode(value)


def decode_chunk(value: bytes) -> LabelChunk:
    """Read an entry of the table `labels`."""
    return _CHUNKS.decode(value)


def encode_entry(entry: FrameEntry | LabelChunk) -> bytes:
    """The value of a table entry."""
    return msgspec.msgpack.encode(entry)


def possible_report(event: FeedbackGiven) -> bool:
    """Whether an event can be kept: some frame may have its id and its row, and its time is a number."""
    return 0 < len(event.frame_id) <= FRAME_ID_CHARACTERS and 0 <= event.row < ROW_LIMIT and isfinite(event.given_at)


NOTHING = RowReports()
"""What was reported for a row that nothing was reported for."""

_FRAMES = msgspec.msgpack.Decoder(FrameEntry)
_CHUNKS = msgspec.msgpack.Decoder(LabelChunk)
