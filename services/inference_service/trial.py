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
from services.inference_service.errors import ParityError, UnsafeModelError
from services.inference_service.runtime import FAILURES, Session
from services.inference_service.settings import InferenceSettings
from shared.events import InputColumn, Scalar, Task
from shared.problems import FieldError, Problem, Unprocessable


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows with scikit-learn's own scores for them."""

    inputs: dict[str, list[Scalar]]
    scores: list[float | list[float]]


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


class Finding(msgspec.Struct, frozen=True):
    """How it went: the worst difference, or the problem."""

    worst: float = 0.0
    detail: str = ""
    field: str = ""


async def try_model(trial: Trial, settings: InferenceSettings) -> float:
    """Run the sample in a limited process; the worst difference from scikit-learn's scores.

    Raises:
        UnsafeModelError: the file is refused, or the trial hits a limit.
        ParityError: the answers differ by more than the tolerance.
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
        process.kill()
        await process.wait()
        output = b""
    if process.returncode != 0 or not output:
        raise UnsafeModelError.at("onnx", "did not survive its trial run within the limits of time and memory")
    finding = msgspec.msgpack.decode(output, type=Finding)
    if finding.field == "sample.scores":
        raise ParityError(finding.detail, [FieldError(finding.field, finding.detail)])
    if finding.detail:
        raise UnsafeModelError(finding.detail, [FieldError(finding.field, finding.detail)])
    return finding.worst


def run(trial: Trial) -> Finding:
    """Load the model, answer the sample, and compare."""
    try:
        parse_model(trial.onnx, node_limit=trial.node_limit)
        session = Session(trial.onnx, trial.schema, trial.task, trial.classes)
        arrays = check_columns(
            trial.schema, trial.sample.inputs, row_limit=trial.row_limit, text_limit=trial.text_limit
        )
        scores = session.answer(arrays).scores
    except Unprocessable as problem:
        return Finding(detail=problem.detail, field=problem.errors[0].field if problem.errors else "onnx")
    except Problem as problem:
        return Finding(detail=problem.detail, field="sample")
    except FAILURES as error:
        return Finding(detail=f"fails on its own sample: {error}", field="onnx")
    return _compare(scores, trial.sample.scores, trial.tolerance)


def _compare(found: Sequence[float | list[float]], wanted: Sequence[float | list[float]], tolerance: float) -> Finding:
    ours, theirs = np.array(found, dtype=np.float64), np.array(wanted, dtype=np.float64)
    if ours.shape != theirs.shape:
        return Finding(detail=f"has shape {theirs.shape}, the model gives {ours.shape}", field="sample.scores")
    difference = np.abs(ours - theirs).reshape(len(ours), -1).max(axis=1)
    row = int(difference.argmax())
    worst = float(difference[row])
    if not worst <= tolerance:
        detail = (
            f"row {row} of the sample differs from scikit-learn by {worst:.3g}, at most {tolerance:.3g} is accepted"
        )
        return Finding(worst, detail, "sample.scores")
    return Finding(worst)


def main(seconds: int, size: int) -> None:
    """Set the limits, then read, run and write."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    trial = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Trial)
    sys.stdout.buffer.write(msgspec.msgpack.encode(run(trial)))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
