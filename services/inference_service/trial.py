"""A trial run of an uploaded model in a process of its own, with limits: `python -m services.inference_service.trial`.

Reads a Trial in MessagePack from stdin, writes a Finding in MessagePack to stdout.
"""

import asyncio
import resource
import sys
from collections.abc import Sequence

import msgspec
import numpy as np

from services.inference_service.domain.columns import check_columns
from services.inference_service.domain.safety import parse_model
from services.inference_service.errors import AnswerError, ManifestError, ParityError, UnsafeModelError
from services.inference_service.session import Session
from services.inference_service.settings import InferenceSettings
from shared.events import InputColumn, Scalar, Task
from shared.problems import FieldError, Problem, TooLarge, Unprocessable

_KINDS = {kind.slug: kind for kind in (UnsafeModelError, ManifestError, ParityError, AnswerError, TooLarge)}


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows with scikit-learn's own scores for them, and its labels; without labels only scores are compared."""

    inputs: dict[str, list[Scalar]]
    scores: list[float | list[float]]
    labels: list[Scalar] = []


class Trial(msgspec.Struct, frozen=True):
    """What is tried."""

    onnx: bytes
    schema: list[InputColumn]
    task: Task
    classes: list[Scalar]
    sample: Sample
    tolerance: float
    row_limit: int
    text_limit: int
    node_limit: int
    score_output: str = ""
    label_output: str = ""


class Finding(msgspec.Struct, frozen=True):
    """How it went: the worst difference, or the problem."""

    worst: float = 0.0
    slug: str = ""
    errors: list[FieldError] = []


async def try_model(trial: Trial, settings: InferenceSettings) -> float:
    """Run the sample in a limited process; the worst difference from scikit-learn's scores.

    Raises:
        UnsafeModelError: the file is refused, or the trial hits a limit.
        ManifestError: the manifest does not fit the file.
        ParityError: the answers differ by more than the tolerance.
        AnswerError, TooLarge, Unprocessable: the model can't answer the sample.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.inference_service.trial",
        str(settings.trial_seconds),
        str(settings.trial_bytes),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(2 * settings.trial_seconds):
            output, _ = await process.communicate(msgspec.msgpack.encode(trial))
    except TimeoutError:
        output = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0 or not output:
        raise UnsafeModelError.at("onnx", "did not survive its trial run within the limits of time and memory")
    finding = msgspec.msgpack.decode(output, type=Finding)
    if finding.slug:
        detail = "; ".join(f"{error.field} {error.message}" for error in finding.errors)
        raise _KINDS.get(finding.slug, Unprocessable)(detail, finding.errors)
    return finding.worst


def run(trial: Trial) -> Finding:
    """Load the model, answer the sample, and compare."""
    try:
        parse_model(trial.onnx, node_limit=trial.node_limit)
        session = Session(
            trial.onnx,
            trial.schema,
            trial.task,
            trial.classes,
            score_output=trial.score_output,
            label_output=trial.label_output,
        )
    except Unprocessable as problem:
        return Finding(slug=problem.slug, errors=problem.errors)
    try:
        arrays = check_columns(
            trial.schema, trial.sample.inputs, row_limit=trial.row_limit, text_limit=trial.text_limit
        )
        answers = session.answer(arrays)
    except Problem as problem:
        return Finding(
            slug=problem.slug, errors=[FieldError(f"sample.{error.field}", error.message) for error in problem.errors]
        )
    differs = _compare(answers.scores, trial.sample.scores, trial.tolerance)
    return differs if differs.slug else _compare_labels(answers.labels, trial.sample.labels) or differs


def _compare(found: Sequence[float | list[float]], wanted: Sequence[float | list[float]], tolerance: float) -> Finding:
    ours = np.array(found, dtype=np.float64)
    try:
        theirs = np.array(wanted, dtype=np.float64)
    except ValueError:  # its rows are not equally long
        return _differs("sample.scores", "is not of equally long rows")
    if ours.shape != theirs.shape:
        return _differs("sample.scores", f"has shape {theirs.shape}, the model gives {ours.shape}")
    # A 32-bit score carries seven digits, so that a difference counts in proportion to a regression's values.
    difference = np.abs(ours - theirs).reshape(len(ours), -1).max(axis=1) / max(1.0, float(np.abs(theirs).max()))
    row = int(difference.argmax())
    worst = float(difference[row])
    if not worst <= tolerance:
        return _differs(
            "sample.scores",
            f"has a row, {row}, that the model answers with a difference of {worst:.3g}; "
            f"at most {tolerance:.3g} is accepted",
        )
    return Finding(worst)


def _compare_labels(found: Sequence[Scalar], wanted: Sequence[Scalar]) -> Finding | None:
    """What is wrong with the labels; None where they agree, or where the sample has none."""
    if not wanted:
        return None
    if len(found) != len(wanted):
        return _differs("sample.labels", f"has {len(wanted)} rows, sample.scores has {len(found)}")
    for row, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if ours != theirs and not isinstance(ours, float):
            return _differs("sample.labels", f"has a row, {row}, as {theirs!r}, which the model labels {ours!r}")
    return None


def _differs(field: str, message: str) -> Finding:
    return Finding(slug=ParityError.slug, errors=[FieldError(field, message)])


def main(seconds: int, size: int) -> None:
    """Set the limits, then read, run and write."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    trial = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Trial)
    sys.stdout.buffer.write(msgspec.msgpack.encode(run(trial)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
