"""A trial run of an uploaded model in a process of its own, with limits: `python -m services.inference_service.trial`.

Reads a Trial, the ONNX file and the sample; writes a Finding and the file as it was checked.
"""

import time

import msgspec
import numpy as np

from contender.contracts.inference_service import ModelVersion, Sample
from services.inference_service.child_process import (
    ParentPipes,
    growth_limited,
    limit_files,
    limit_memory,
    time_limited,
)
from services.inference_service.domain.columns import Arrays, check_columns, neutral_row
from services.inference_service.domain.cost import TrialRecord, follows_from_rows
from services.inference_service.domain.safety import parse_model
from services.inference_service.errors import AnswerError, ParityError, UnsafeModelError
from services.inference_service.session import RUN_ROWS, Scores, Session
from shared.errors import FieldError, InvalidField, ServiceError

_PARSED_PER_BYTE = 16
_PARSING_BYTES = 64 * 1024**2
"""Memory for parsing: exported models take 9 times their size; a file of nothing but empty parts takes 160 times."""
_LARGE_RUN_BYTES = 64 * 1024**2
"""Most memory that the largest run of a model may take if the model shall run in the web process."""
_REPEATS = 5
"""Of so many runs the quickest counts: a busy machine interrupts some, and processor time is too coarse a measure."""


class Trial(msgspec.Struct, frozen=True):
    """What to try and within which limits, beside the file and the sample."""

    version: ModelVersion
    tolerance: float
    row_limit: int
    text_limit: int
    node_limit: int
    seconds: int
    memory_bytes: int
    has_sample: bool = True


class Finding(msgspec.Struct, frozen=True):
    """The result of a trial: the worst difference and the cost, or the problem."""

    worst: float = 0.0
    rows: int = 0
    kind: str = ""
    errors: list[FieldError] = []
    record: TrialRecord = TrialRecord()


def run(trial: Trial, content: bytes, sample: bytes) -> tuple[Finding, bytes]:
    """Check and load the model, answer the sample, compare, and measure; return the file as it was checked, too.

    A trial without a sample opens and measures the model only.
    """
    schema = trial.version.inputs
    try:
        session, checked, cost = _open(trial, content)
    except InvalidField as problem:
        return Finding(kind=type(problem).__name__, errors=problem.errors), b""
    if not trial.has_sample:
        return Finding(record=_measure(session, neutral_row(schema), cost)), checked
    try:
        rows = msgspec.json.decode(sample, type=Sample)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"can't be read: {error}"
        return Finding(kind=InvalidField.__name__, errors=[FieldError("sample", message)]), b""
    try:
        columns = check_columns(schema, rows.inputs, row_limit=trial.row_limit, text_limit=trial.text_limit)
        answers = session.answer(columns)
    except ServiceError as problem:
        errors = [FieldError(f"sample.{error.field}", error.message) for error in problem.errors]
        return Finding(kind=type(problem).__name__, errors=errors), b""
    finding = _compare(answers, rows, trial.tolerance)
    finding = finding if finding.kind else _compare_labels(answers, rows) or finding
    if finding.kind:
        return finding, b""
    record = _measure(session, columns, cost)
    reference = {name: values[0] for name, values in rows.inputs.items()}
    return msgspec.structs.replace(finding, record=msgspec.structs.replace(record, reference=reference)), checked


def _open(trial: Trial, content: bytes) -> tuple[Session, bytes, TrialRecord]:
    """The open model, its checked file, and what is known of its cost before it has run.

    Raises:
        UnsafeModelError, ManifestError: the file is refused.
    """
    try:
        with growth_limited(_PARSING_BYTES + _PARSED_PER_BYTE * len(content)):
            model = parse_model(content, node_limit=trial.node_limit)
    except MemoryError as error:
        raise UnsafeModelError.at("onnx", "has too many parts for its size") from error
    checked: bytes = model.SerializeToString(deterministic=True)
    started = time.perf_counter()
    session = Session.of(checked, trial.version)
    opening_ms = 1e3 * (time.perf_counter() - started)
    return session, checked, TrialRecord(bounded=follows_from_rows(model), opening_ms=opening_ms)


def _measure(session: Session, columns: Arrays, cost: TrialRecord) -> TrialRecord:
    """Measure the time of a row, and whether the largest run of the web process keeps within its memory."""
    single = {name: array[:1] for name, array in columns.items()}
    cost = msgspec.structs.replace(cost, row_ms=_milliseconds(session, single))
    if not cost.quick:
        return cost
    many = {name: np.resize(array, RUN_ROWS) for name, array in columns.items()}
    try:
        with growth_limited(_LARGE_RUN_BYTES):
            row_ms = max(cost.row_ms, _milliseconds(session, many) / RUN_ROWS)
    except MemoryError:
        return msgspec.structs.replace(cost, bounded=False)
    return msgspec.structs.replace(cost, row_ms=row_ms)


def _milliseconds(session: Session, arrays: Arrays) -> float:
    """The shortest time of some runs."""
    least = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        try:
            session.answer(arrays)
        except AnswerError as error:
            if isinstance(error.__cause__, MemoryError) or "alloc" in str(error):
                raise MemoryError from error
        least = min(least, time.perf_counter() - started)
    return 1e3 * least


def _compare(answers: Scores, sample: Sample, tolerance: float) -> Finding:
    ours = np.array(answers.scores, dtype=np.float64)
    try:
        theirs = np.array(sample.scores, dtype=np.float64)
    except ValueError:  # its rows have different lengths
        return _differs("sample.scores", "has rows of different lengths")
    if ours.shape != theirs.shape:
        return _differs("sample.scores", f"has shape {theirs.shape}, the model gives {ours.shape}")
    # A 32-bit score carries seven digits, so that a difference counts in proportion to a regression's values.
    difference = np.abs(ours - theirs).reshape(len(ours), -1).max(axis=1) / max(1.0, float(np.abs(theirs).max()))
    row = int(difference.argmax())
    worst = float(difference[row])
    if not worst <= tolerance:
        return _differs(
            "sample.scores",
            f"differs in row {row} from the model's own score by {worst:.3g}; at most {tolerance:.3g} is accepted",
        )
    return Finding(worst, len(ours))


def _compare_labels(answers: Scores, sample: Sample) -> Finding | None:
    """What is wrong with the labels; None where they agree, or where the sample has none."""
    if not sample.labels:
        return None
    if len(answers.labels) != len(sample.labels):
        message = f"has {len(sample.labels)} rows, sample.scores has {len(answers.labels)}"
        return _differs("sample.labels", message)
    for row, (ours, theirs) in enumerate(zip(answers.labels, sample.labels, strict=True)):
        if ours != theirs and not isinstance(ours, float):
            return _differs("sample.labels", f"has {theirs!r} in row {row}, which the model labels {ours!r}")
    return None


def _differs(field: str, message: str) -> Finding:
    return Finding(kind=ParityError.__name__, errors=[FieldError(field, message)])


def main() -> None:
    """Read, set the limits, run, and write."""
    pipes = ParentPipes()
    limit_files()
    head, content, sample = pipes.read()
    trial = msgspec.msgpack.decode(head, type=Trial)
    pipes.write([b""])
    pipes.read()  # from now on the trial's own time runs, not that of starting Python
    limit_memory(trial.memory_bytes)
    with time_limited(trial.seconds):
        finding, checked = run(trial, content, sample)
    pipes.write([msgspec.msgpack.encode(finding), checked])


if __name__ == "__main__":
    main()
