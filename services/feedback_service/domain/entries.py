"""What the join keeps of a prediction frame: the columns that labels are compared with."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from contender.contracts.limits import CLIPS
from contender.contracts.metrics import LOG_LOSS_CLIP
from contender.contracts.tasks import TaskName, task_named
from contender.contracts.values import Missing, Outcome, Scalar
from services.feedback_service.domain.keys import with_expiry, without_expiry
from services.feedback_service.domain.sums.units import unit_buckets
from shared.events import PredictionBlock, PredictionFrame

CHUNK_ROWS = 64
"""Rows whose reports share a table entry: a report rewrites at most so many, however large its frame is."""

TEXT_CHARACTERS = 100
"""Longer texts are kept as their hash, in classes and outcomes alike, so that they still compare."""

NAME_CHARACTERS = 200
"""The longest name of an experiment, a variant, a model or a version; the router's own limit."""

LATEST_S = 253_402_300_800.0
"""The year 10000: no row has a time beyond it."""

LARGEST_ERROR = 1e75
"""The largest error of a predicted number that counts: the square of its square is still a number."""

UNKNOWN_LABEL = -1
_BINARY_CLASSES = 2
_INT64 = 2**63

Floats = NDArray[np.float64]
ScalarT = TypeVar("ScalarT", Outcome, Scalar)


class BlockEntry(msgspec.Struct, frozen=True, array_like=True):
    """The columns of a PredictionBlock that labels are compared with, packed, with one entry per row.

    `bucket` (uint8) stands for the unit, `time` and `score` are float64, `width` is the number of scores of a row (0:
    one number), `label` (int32) the number of the class that was served, UNKNOWN_LABEL where `classes` lack it;
    it is empty where the router recorded no label. A block without experiment or variant keeps its size only.
    """

    size: int
    experiment: str = ""
    epoch: int = 0
    variant: str = ""
    model: str = ""
    version: str = ""
    task: TaskName = "binary"
    classes: list[Scalar] = []
    window_s: float = 0.0
    missing: Missing = "excluded"
    probability: float = 1.0
    fallback: bool = False
    bucket: bytes = b""
    time: bytes = b""
    score: bytes = b""
    width: int = 0
    degraded: bytes = b""
    label: bytes = b""
    log_loss_clip: float = LOG_LOSS_CLIP

    @property
    def compared(self) -> bool:
        """Whether the rows belong to a variant of an experiment."""
        return bool(self.experiment)

    @property
    def buckets(self) -> NDArray[np.uint8]:
        """The unit's bucket of each row, shape (rows,)."""
        return np.frombuffer(self.bucket, dtype=np.uint8)

    @property
    def times(self) -> Floats:
        """When each row was predicted, shape (rows,)."""
        return np.frombuffer(self.time, dtype=np.float64)

    @property
    def scores(self) -> Floats:
        """Shape (rows,), or (rows, width) where a row has several scores."""
        scores = np.frombuffer(self.score, dtype=np.float64)
        return scores.reshape(-1, self.width) if self.width else scores

    @property
    def labels(self) -> NDArray[np.int32]:
        """The number of the class that was served, shape (rows,); empty where none was recorded."""
        return np.frombuffer(self.label, dtype=np.int32)

    def outcome_value(self, index: int, outcome: Outcome) -> float | None:
        """An outcome of row `index` as metrics take it; None where the model can't mean it."""
        task = task_named(self.task)
        value = task.outcome_value(outcome, self.classes or range(self.width))
        if value is None or task.has_classes:
            return value
        return value if abs(value - float(self.scores[index])) <= LARGEST_ERROR else None

    @property
    def degraded_rows(self) -> NDArray[np.bool_]:
        """Whether the answer used defaults or a fallback, shape (rows,)."""
        return np.frombuffer(self.degraded, dtype=np.bool_) if self.degraded else np.zeros(self.size, dtype=np.bool_)


class FrameEntry(msgspec.Struct, frozen=True, array_like=True):
    """A prediction frame as the join keeps it, with its offset in the topic `predictions` and when it was sent."""

    offset: int
    sent_at: float
    blocks: list[BlockEntry]

    @property
    def size(self) -> int:
        """Rows of all blocks."""
        return sum(block.size for block in self.blocks)

    @property
    def chunks(self) -> int:
        """Chunks that the rows fill."""
        return -(-self.size // CHUNK_ROWS)

    @property
    def window_s(self) -> float:
        """The longest window of the blocks."""
        return max(block.window_s for block in self.blocks)

    def located(self) -> Iterator[tuple[int, BlockEntry]]:
        """The blocks, each with the number of its first row in the frame."""
        first = 0
        for block in self.blocks:
            yield first, block
            first += block.size


def frame_entry(frame: PredictionFrame, offset: int, sent_at: float) -> FrameEntry:
    """The entry that the join keeps of a frame.

    Raises:
        ValueError: the lists of a block are not one entry per row, its scores do not fit its task, or a value is out
            of range.
    """
    if not any(len(block) for block in frame.blocks):
        raise ValueError("the frame has no rows")
    for number, block in enumerate(frame.blocks):
        _check(number, block)
    return FrameEntry(offset, sent_at, [_block_entry(block) for block in frame.blocks])


def encode_frame(entry: FrameEntry, expires_at: float) -> bytes:
    """The value of a frame's table entry."""
    return with_expiry(expires_at, msgspec.msgpack.encode(entry))


def decode_frame(value: bytes) -> FrameEntry:
    """Read the value of a frame's table entry."""
    return _FRAMES.decode(without_expiry(value))


def _block_entry(block: PredictionBlock) -> BlockEntry:
    if block.experiment is None or block.variant is None:
        return BlockEntry(len(block))
    scores = np.array(block.score, dtype=np.float64)
    return BlockEntry(
        size=len(block),
        experiment=block.experiment,
        epoch=block.epoch,
        variant=block.variant,
        model=block.model,
        version=block.version,
        task=block.task,
        classes=[storable(label) for label in block.classes],
        window_s=block.window_s,
        missing=block.missing,
        probability=block.assignment_probability,
        fallback=block.served_variant != block.variant,
        bucket=unit_buckets(block.unit).astype(np.uint8).tobytes(),
        time=np.array(block.time, dtype=np.float64).tobytes(),
        score=scores.tobytes(),
        width=scores.shape[1] if scores.ndim > 1 else 0,
        degraded=np.array(block.degraded, dtype=np.bool_).tobytes() if any(block.degraded) else b"",
        label=_class_numbers(block),
        log_loss_clip=block.log_loss_clip,
    )


def _class_numbers(block: PredictionBlock) -> bytes:
    """The labels that were served as numbers of their classes; without classes the score alone counts."""
    if not block.label or not task_named(block.task).has_classes:
        return b""
    classes = block.classes or list(range(_width(block)))
    numbers = {label: number for number, label in reversed(list(enumerate(classes)))}
    return np.array([numbers.get(label, UNKNOWN_LABEL) for label in block.label], dtype=np.int32).tobytes()


def _width(block: PredictionBlock) -> int:
    first = block.score[0] if block.score else 0.0
    return len(first) if isinstance(first, list) else _BINARY_CLASSES


def _check(number: int, block: PredictionBlock) -> None:
    rows = len(block)
    named = {
        "time": block.time,
        "score": block.score,
        "degraded": block.degraded or block.unit,
        "label": block.label or block.unit,
    }
    for name, values in named.items():
        if len(values) != rows:
            raise ValueError(f"blocks[{number}].{name} has {len(values)} entries for {rows} rows")
    _check_ranges(number, block)
    fault = task_named(block.task).score_fault(block.score, len(block.classes))
    if fault:
        raise ValueError(f"blocks[{number}].score {fault}")


def _check_ranges(number: int, block: PredictionBlock) -> None:
    integers = [label for label in block.classes if isinstance(label, int)]
    names = [block.experiment or "", block.variant or "", block.model, block.version]
    wrong = {
        "window_s": block.window_s < 0.0,
        "log_loss_clip": not CLIPS[0] <= block.log_loss_clip <= CLIPS[1],
        "epoch": not 0 <= block.epoch < _INT64,
        "assignment_probability": not 0.0 <= block.assignment_probability <= 1.0,
        "classes": not all(-_INT64 <= label < _INT64 for label in integers),
        "time": not all(-LATEST_S <= time < LATEST_S for time in block.time),
        "its names": any(len(name) > NAME_CHARACTERS for name in names),
    }
    if any(wrong.values()):
        names = [name for name, is_wrong in wrong.items() if is_wrong]
        raise ValueError(f"blocks[{number}] is out of range in {', '.join(names)}")


def storable(value: ScalarT) -> ScalarT:
    """The value in few bytes: a long text as its hash, an integer beyond 64 bits as a float."""
    if isinstance(value, str) and len(value) > TEXT_CHARACTERS:
        return "sha256:" + hashlib.sha256(value.encode()).hexdigest()
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return float(value) if abs(value) <= float(np.finfo(np.float64).max) else np.inf
    return value


def row_groups(
    block: BlockEntry, width_s: float, day_s: float, rows: Sequence[int] | None = None
) -> list[tuple[int, int, Sequence[int]]]:
    """Rows of a block, by default all, by cohort of `width_s` seconds and day: triples (cohort, day, rows)."""
    chosen = np.arange(block.size) if rows is None else np.array(rows)
    times = block.times[chosen]
    cohorts = np.floor(times / width_s).astype(np.int64)
    days = np.floor(times / day_s).astype(np.int64)
    if cohorts.min() == cohorts.max() and days.min() == days.max():
        return [(int(cohorts[0]), int(days[0]), chosen.tolist())]
    order = np.lexsort((days, cohorts))  # stable: rows of a group stay in order
    cohorts, days, chosen = cohorts[order], days[order], chosen[order]
    starts = [0, *(np.flatnonzero(np.diff(cohorts) | np.diff(days)) + 1).tolist(), len(order)]
    return [(int(cohorts[start]), int(days[start]), chosen[start:end].tolist()) for start, end in pairwise(starts)]


_FRAMES = msgspec.msgpack.Decoder(FrameEntry)
