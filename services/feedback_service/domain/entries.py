"""What the join keeps of a prediction frame: the columns that labels are compared with."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf, isclose
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from contender.contracts.formula import FormulaError
from contender.contracts.limits import CLIPS, ERROR_LIMITS, SEGMENTS, UNDECLARED_EARLY_S
from contender.contracts.metrics import metric_about
from contender.contracts.tasks import EVEN, TaskName, task_named
from contender.contracts.values import OUTCOME, ClockName, FeedbackKind, Missing, Outcome, Scalar
from services.feedback_service.domain.days import day_numbers, is_time_zone, utc_offsets
from services.feedback_service.domain.formulas import formula_of, row_value
from services.feedback_service.domain.keys import with_expiry, without_expiry
from services.feedback_service.domain.segment_values import Column, note_values, segment_column
from services.feedback_service.domain.sums.units import unit_buckets
from shared.events import PredictionBlock, PredictionFrame, UnansweredBlock

CHUNK_ROWS = 64
"""Rows whose reports share a table entry: a report rewrites at most so many, however large its frame is."""

TEXT_BYTES = 100
"""Longer texts are kept as their hash, in classes and outcomes alike, so that they still compare."""

NAME_CHARACTERS = 200
"""The longest name of an experiment, a variant, a model or a version; the router's own limit."""

LATEST_S = 253_402_300_800.0
"""The year 10000: no row has a time beyond it."""

FIRST_CLIP = float(np.finfo(np.float64).eps)
"""The least probability that counted in the first releases: their stored blocks are judged by it to the end."""

LARGEST_ERROR = 1e75
"""The largest error of a predicted number that counts: the square of its square is still a number."""

CONVERTING = 2
"""The rules of judgement (`BlockEntry.rules`) by which outcomes are converted and late rows are counted."""

SERVING = 3
"""Those by which all rows that were answered are summed as well, and so reports on a share of them."""

LONGEST_MS = 86_400_000.0
"""Latencies beyond a day are mistakes, and count as none."""

LARGEST_WEIGHT = 2**32 - 1
"""The most rows that a labelled one may stand for; no exploration share is so small."""

_ROUNDING = 1e-6
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)
UNKNOWN_LABEL = -1
_BINARY_CLASSES = 2
_INT64 = 2**63

Floats = NDArray[np.float64]
ScalarT = TypeVar("ScalarT", Outcome, Scalar)


class BlockEntry(msgspec.Struct, frozen=True, array_like=True):
    """The columns of a PredictionBlock that labels are compared with, packed, with one entry per row.

    `bucket` (uint8) stands for the unit, `time` and `score` are float64, `width` is the number of scores of a row (0:
    one number), `label` (int32) the number of the class that was served, UNKNOWN_LABEL where `classes` lack it;
    it is empty where the router recorded no label. A block without experiment or variant keeps its size only, and
    where its rows got a variant but don't count, the experiment `excluded_from` and the reason (`exclusion`).
    `utc_offset` (int32) is what `utc_offsets` gives, and `latency` (float32) milliseconds, empty where none were
    recorded. A block of unanswered rows has neither version nor scores. `inputs` are the columns that the formula
    `value` names, in which long texts are hashes. `weight` (uint32) is the rows that a labelled row stands
    for: the inverse of the probability with which its label is seen, 0 where that is 0; it is empty where all stand for
    themselves. `segments` has the values of the context at the keys that the effect is shown for, and `metric` decides.

    `rules` is less than SERVING for blocks that earlier releases have stored: the sums hold their rows by those rules,
    and only by them can a row be taken back.
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
    early_s: float = UNDECLARED_EARLY_S
    label_range: tuple[float, float] | None = None
    clock: ClockName = "event"
    time_zone: str = "UTC"
    utc_offset: bytes = b""
    rules: int = 1
    log_loss_clip: float = FIRST_CLIP
    error_limit: float | None = None
    value: str = ""
    inputs: dict[str, list[Scalar]] = {}
    latency: bytes = b""
    weight: bytes = b""
    metric: str = ""
    segments: dict[str, Column] = {}
    excluded_from: str = ""
    exclusion: str = ""

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
    def days(self) -> NDArray[np.int64]:
        """The day of each row in the experiment's time zone, shape (rows,)."""
        return day_numbers(self.times, np.frombuffer(self.utc_offset, dtype=np.int32))

    @property
    def scores(self) -> Floats:
        """Shape (rows,), or (rows, width) where a row has several scores."""
        scores = np.frombuffer(self.score, dtype=np.float64)
        return scores.reshape(-1, self.width) if self.width else scores

    @property
    def labels(self) -> NDArray[np.int32]:
        """The number of the class that was served, shape (rows,); empty where none was recorded."""
        return np.frombuffer(self.label, dtype=np.int32)

    @property
    def weights(self) -> NDArray[np.uint32]:
        """The rows that each row stands for if it has a label, shape (rows,)."""
        return np.frombuffer(self.weight, dtype=np.uint32) if self.weight else np.ones(self.size, dtype=np.uint32)

    def outcome_value(self, index: int, outcome: Outcome) -> float | None:
        """An outcome of row `index` as metrics take it; None where the model can't mean it.

        A regression's outcome must lie within the experiment's range, and the formula of the experiment must have a
        value with it: all metrics are over the same rows.
        """
        value = self._possible_outcome(index, outcome)
        return None if value is None or not self.has_value(index, value) else value

    def report_value(self, index: int, outcome: Outcome, kind: FeedbackKind) -> float | None:
        """A report on row `index` as the metric about its kind takes it; None where the model can't mean it."""
        if kind == OUTCOME:
            return self.outcome_value(index, outcome)
        return float(self._is_override(index, outcome) if metric_about(kind).against_answer else outcome)

    def _is_override(self, index: int, decided: Outcome) -> bool:
        """Whether a decision is another label than the answer's; one that the model does not know is.

        Where no label was recorded the likelier class counts, and a number may differ by what 32 bits round.
        """
        task = task_named(self.task)
        value = task.outcome_value(decided, self._classes)
        if value is None:
            return True
        if not task.has_classes:
            return not isclose(value, float(self.scores[index]), rel_tol=_FLOAT32_EPSILON)
        return int(value) != int(self.answered_classes[index])

    @property
    def answered_classes(self) -> NDArray[np.int32]:
        """The number of the class that was answered, shape (rows,): the likelier one where no label was recorded."""
        if self.label:
            return self.labels
        scores = self.scores
        classes: NDArray[np.int32] = (scores.argmax(axis=1) if self.width else scores > EVEN).astype(np.int32)
        return classes

    @property
    def _classes(self) -> Sequence[Scalar]:
        return self.classes or range(self.width or _BINARY_CLASSES)

    def has_value(self, index: int, outcome: float) -> bool:
        """Whether the formula of the experiment, if any, has a value for row `index` with an outcome of metrics."""
        return not self.value or row_value(self.value, *self.formula_values([(index, outcome)])) is not None

    def formula_values(
        self, rows: Sequence[tuple[int, float]], scores: Floats | None = None, labels: NDArray[np.int32] | None = None
    ) -> list[dict[str, Scalar]]:
        """What a formula may use of rows, by name: their inputs, the outcome, the label that was served, and the score.

        Outcome and label are classes, and numbers for a regression; a label that was not recorded is null. The score of
        a multiclass model is its largest probability.

        Args:
            rows: rows of the block, each with its outcome as metrics take it.
            scores: other scores of these rows, shape (rows,) or (rows, width).
            labels: the numbers of the classes of other labels, shape (rows,).
        """
        indexes = [index for index, _ in rows]
        chosen = self.scores[indexes] if scores is None else scores
        columns: dict[str, Sequence[Scalar]] = {
            name: [column[index] for index in indexes] for name, column in self.inputs.items()
        }
        columns["score"] = (chosen.max(axis=1) if self.width else chosen).tolist()
        columns["outcome"], columns["label"] = [outcome for _, outcome in rows], columns["score"]
        if task_named(self.task).has_classes:
            classes = self._classes
            served = self.labels[indexes] if labels is None and self.label else labels
            numbers = [UNKNOWN_LABEL] * len(rows) if served is None else served.tolist()
            columns["outcome"] = [classes[int(outcome)] for _, outcome in rows]
            columns["label"] = [None if number == UNKNOWN_LABEL else classes[number] for number in numbers]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _possible_outcome(self, index: int, outcome: Outcome) -> float | None:
        task = task_named(self.task)
        is_converted = outcome not in self._classes if task.has_classes else isinstance(outcome, str)
        if is_converted and self.rules < CONVERTING:
            return None
        value = task.outcome_value(outcome, self._classes)
        return value if value is not None and self.is_possible(index, value) else None

    def is_possible(self, index: int, value: float) -> bool:
        """Whether row `index` may have that outcome: a regression's must lie within the experiment's range."""
        if task_named(self.task).has_classes:
            return True
        low, high = self.label_range or (-inf, inf)
        return low <= value <= high and abs(value - float(self.scores[index])) <= LARGEST_ERROR

    def note_segments(self, known: dict[str, list[str]]) -> None:
        """Add the values of the segments to those that are known."""
        note_values(known, self.segments)

    @property
    def degraded_rows(self) -> NDArray[np.bool_]:
        """Whether the answer used defaults or a fallback, shape (rows,)."""
        return np.frombuffer(self.degraded, dtype=np.bool_) if self.degraded else np.zeros(self.size, dtype=np.bool_)

    @property
    def latencies_ms(self) -> Floats:
        """How long each answer took, shape (rows,); not a number where none was recorded."""
        if not self.latency:
            return np.full(self.size, np.nan)
        return np.frombuffer(self.latency, dtype=np.float32).astype(np.float64)


class FrameEntry(msgspec.Struct, frozen=True, array_like=True):
    """A prediction frame as the join keeps it, with its offset in the topic `predictions` and when it was sent.

    The blocks of `unanswered` rows have no numbers, since nothing is reported on their rows.
    """

    offset: int
    sent_at: float
    blocks: list[BlockEntry]
    unanswered: list[BlockEntry] = []

    @property
    def size(self) -> int:
        """Rows of all blocks that were answered."""
        return sum(block.size for block in self.blocks)

    @property
    def excluded(self) -> dict[str, dict[str, int]]:
        """Rows that got a variant and don't count: by experiment and reason."""
        excluded: dict[str, dict[str, int]] = {}
        for block in self.blocks:
            if block.excluded_from and block.size:
                rows = excluded.setdefault(block.excluded_from, {})
                rows[block.exclusion] = rows.get(block.exclusion, 0) + block.size
        return excluded

    @property
    def chunks(self) -> int:
        """Chunks that the rows fill."""
        return -(-self.size // CHUNK_ROWS)

    @property
    def window_s(self) -> float:
        """The longest window of the blocks."""
        return max((block.window_s for block in (*self.blocks, *self.unanswered)), default=0.0)

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
    if not (any(map(len, frame.blocks)) or any(map(len, frame.unanswered))):
        raise ValueError("the frame has no rows")
    for number, block in enumerate(frame.blocks):
        _check(f"blocks[{number}]", block)
    for number, unanswered in enumerate(frame.unanswered):
        _check_unanswered(f"unanswered[{number}]", unanswered)
    return FrameEntry(
        offset,
        sent_at,
        [_block_entry(block) for block in frame.blocks],
        [_unanswered_entry(block) for block in frame.unanswered if len(block)],
    )


def encode_frame(entry: FrameEntry, expires_at: float) -> bytes:
    """The value of a frame's table entry."""
    return with_expiry(expires_at, msgspec.msgpack.encode(entry))


def decode_frame(value: bytes) -> FrameEntry:
    """Read the value of a frame's table entry."""
    return _FRAMES.decode(without_expiry(value))


def _block_entry(block: PredictionBlock) -> BlockEntry:
    if block.experiment is None or block.variant is None:
        return BlockEntry(len(block), excluded_from=block.excluded_from, exclusion=block.exclusion)
    scores = np.array(block.score, dtype=np.float64)
    times = np.array(block.time, dtype=np.float64)
    weights = _weights(block.label_probability)
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
        time=times.tobytes(),
        score=scores.tobytes(),
        width=scores.shape[1] if scores.ndim > 1 else 0,
        degraded=np.array(block.degraded, dtype=np.bool_).tobytes() if any(block.degraded) else b"",
        label=class_numbers(block.label, block.classes or list(range(_width(block))), block.task),
        early_s=block.early_s,
        label_range=block.label_range,
        clock=block.clock,
        time_zone=block.time_zone,
        utc_offset=utc_offsets(times, block.time_zone).tobytes(),
        rules=SERVING,
        log_loss_clip=block.log_loss_clip,
        error_limit=block.error_limit,
        value=block.value,
        inputs={name: list(map(storable, column)) for name, column in _formula_inputs(block).items()},
        latency=_latencies(block),
        weight=weights.astype(np.uint32).tobytes() if (weights != 1.0).any() else b"",
        metric=block.metric,
        segments={
            key: segment_column([storable(value) for value in block.context[key]]) for key in _segment_keys(block)
        },
    )


def _formula_inputs(block: PredictionBlock) -> dict[str, list[Scalar]]:
    """The input columns that the formula names; one that the answering version lacks is null in every row."""
    names = formula_of(block.value).names if block.value else frozenset[str]()
    return {name: block.inputs[name] for name in sorted(names & block.inputs.keys())}


def _segment_keys(block: PredictionBlock) -> list[str]:
    return [key for key in block.segments[:SEGMENTS] if key in block.context]


def _unanswered_entry(block: UnansweredBlock) -> BlockEntry:
    times = np.array(block.time, dtype=np.float64)
    return BlockEntry(
        size=len(block),
        experiment=block.experiment,
        epoch=block.epoch,
        variant=block.variant,
        model=block.model,
        task=block.task,
        window_s=block.window_s,
        missing=block.missing,
        probability=block.assignment_probability,
        bucket=unit_buckets(block.unit).astype(np.uint8).tobytes(),
        time=times.tobytes(),
        clock=block.clock,
        time_zone=block.time_zone,
        utc_offset=utc_offsets(times, block.time_zone).tobytes(),
        rules=SERVING,
    )


def _latencies(block: PredictionBlock) -> bytes:
    if not block.latency_ms:
        return b""
    latencies = np.array(block.latency_ms, dtype=np.float64)
    is_possible = (latencies >= 0.0) & (latencies <= LONGEST_MS)
    return np.where(is_possible, latencies, np.nan).astype(np.float32).tobytes()


def class_numbers(labels: Sequence[Scalar], classes: Sequence[Scalar], task: TaskName) -> bytes:
    """The labels that were answered as numbers of their classes; without classes the score alone counts."""
    if not labels or not task_named(task).has_classes:
        return b""
    numbers = {label: number for number, label in reversed(list(enumerate(classes)))}
    return np.array([numbers.get(label, UNKNOWN_LABEL) for label in labels], dtype=np.int32).tobytes()


def _weights(probabilities: Sequence[float]) -> Floats:
    """The inverse of each probability, 0 for 0, shape (rows,): a whole number, not a number where it is none."""
    given = np.array(probabilities, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        inverse = np.divide(1.0, given, out=np.zeros_like(given), where=given != 0.0)
        whole = np.round(inverse)
        is_whole = (given <= 1.0) & (np.abs(whole - inverse) <= _ROUNDING * np.abs(inverse))
    weights: Floats = np.where(is_whole, whole, np.nan)
    return weights


def _width(block: PredictionBlock) -> int:
    first = block.score[0] if block.score else 0.0
    return len(first) if isinstance(first, list) else _BINARY_CLASSES


def _check(name: str, block: PredictionBlock) -> None:
    named = {
        "time": block.time,
        "score": block.score,
        "degraded": block.degraded or block.unit,
        "label": block.label or block.unit,
        "latency_ms": block.latency_ms or block.unit,
        "label_probability": block.label_probability or block.unit,
        **{f"context[{key!r}]": block.context[key] for key in _segment_keys(block)},
    }
    _check_lengths(name, len(block), named)
    integers = [label for label in block.classes if isinstance(label, int)]
    low, high = block.label_range or (0.0, 0.0)
    weights = _weights(block.label_probability)
    names = [block.version, block.metric, block.excluded_from, block.exclusion]
    wrong = {
        "classes": not all(-_INT64 <= label < _INT64 for label in integers),
        "early_s": not 0.0 <= block.early_s < inf,
        "label_range": not low <= high,
        "error_limit": not ERROR_LIMITS[0] <= (block.error_limit or ERROR_LIMITS[0]) <= ERROR_LIMITS[1],
        "value": bool(block.value) and not _is_formula(block.value),
        "label_probability": not ((weights >= 0.0) & (weights <= LARGEST_WEIGHT)).all(),
        "log_loss_clip": not CLIPS[0] <= block.log_loss_clip <= CLIPS[1],
        "its names": max(map(len, (*names, *block.segments))) > NAME_CHARACTERS,
    }
    _check_ranges(name, block, wrong)
    _check_lengths(name, len(block), {f"inputs.{column}": values for column, values in _formula_inputs(block).items()})
    fault = task_named(block.task).score_fault(block.score, len(block.classes))
    if fault:
        raise ValueError(f"{name}.score {fault}")


def _is_formula(text: str) -> bool:
    try:
        formula_of(text)
    except FormulaError:
        return False
    return True


def _check_unanswered(name: str, block: UnansweredBlock) -> None:
    _check_lengths(name, len(block), {"time": block.time, "reason": block.reason})
    _check_ranges(name, block, {"its names": not (block.experiment and block.variant)})


def _check_lengths(name: str, rows: int, lists: Mapping[str, Sequence[object]]) -> None:
    for field, values in lists.items():
        if len(values) != rows:
            raise ValueError(f"{name}.{field} has {len(values)} entries for {rows} rows")


def _check_ranges(name: str, block: PredictionBlock | UnansweredBlock, wrong: Mapping[str, bool]) -> None:
    """Raise where a field that both kinds of blocks have is out of range, or one that is known to be `wrong`."""
    names = [block.experiment or "", block.variant or "", block.model]
    fields = {
        "window_s": not block.window_s >= 0.0,
        "epoch": not 0 <= block.epoch < _INT64,
        "assignment_probability": not 0.0 <= block.assignment_probability <= 1.0,
        "time": not all(-LATEST_S <= time < LATEST_S for time in block.time),
        "time_zone": not is_time_zone(block.time_zone),
        "its names": any(len(name) > NAME_CHARACTERS for name in names),
    }
    faults = [field for field in {**fields, **wrong} if fields.get(field) or wrong.get(field)]
    if faults:
        raise ValueError(f"{name} is out of range in {', '.join(faults)}")


def storable(value: ScalarT) -> ScalarT:
    """The value in few bytes: a long text as its hash, an integer beyond 64 bits as a float."""
    if isinstance(value, str) and len(value.encode()) > TEXT_BYTES:
        return "sha256:" + hashlib.sha256(value.encode()).hexdigest()
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return float(value) if abs(value) <= float(np.finfo(np.float64).max) else np.inf
    return value


def row_groups(
    block: BlockEntry, width_s: float, rows: Sequence[int] | None = None
) -> list[tuple[int, int, Sequence[int]]]:
    """Rows of a block, by default all, by cohort of `width_s` seconds and day: triples (cohort, day, rows)."""
    chosen = np.arange(block.size) if rows is None else np.array(rows)
    cohorts = np.floor(block.times[chosen] / width_s).astype(np.int64)
    days = block.days[chosen]
    if cohorts.min() == cohorts.max() and days.min() == days.max():
        return [(int(cohorts[0]), int(days[0]), chosen.tolist())]
    order = np.lexsort((days, cohorts))  # stable: rows of a group stay in order
    cohorts, days, chosen = cohorts[order], days[order], chosen[order]
    starts = [0, *(np.flatnonzero(np.diff(cohorts) | np.diff(days)) + 1).tolist(), len(order)]
    return [(int(cohorts[start]), int(days[start]), chosen[start:end].tolist()) for start, end in pairwise(starts)]


_FRAMES = msgspec.msgpack.Decoder(FrameEntry)
