"""Exports a ready ONNX file: its own answers to the rows are the sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from contender.contracts.inference_service import InputColumn
from contender.contracts.tasks import REGRESSION, ScoreError, TaskName
from contender.errors import ExportError
from contender.registration.checks import check_labels, check_named
from contender.registration.failures import FOREIGN
from contender.registration.file import File, Scores
from contender.registration.manifest import Export, Recorded, record
from contender.registration.meaning import infer_meaning
from contender.registration.parity import SAMPLE_ROWS
from contender.registration.pipelines import plain
from contender.registration.reading import (
    content_of,
    input_columns,
    open_file,
    output_names,
    parse,
    without_maps,
)
from contender.registration.rows import Rows

_TOLERANCE = 1e-5


def export_file(
    model: Any,
    columns: Any,
    labels: Any = None,
    *,
    task: TaskName | None = None,
    classes: Sequence[Any] | None = None,
    sources: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    description: str = "",
    training_set: Recorded | None = None,
    never_null: Sequence[str] = (),
) -> Export:
    """Export a ready ONNX file: the rows name and type its inputs, and its own answers to them become the sample.

    Args:
        model: a path, bytes, or a ModelProto.
        columns: rows for it, shape (rows, inputs): named as the file's inputs are, or in the order of its one matrix.
        labels: the true outcomes of the rows, shape (rows,); they say which classes there are, and what range
            a regression's have.
        task: the name of its task; default: inferred from the file's outputs and the labels.
        classes: the labels of the probabilities' columns; default: inferred.
        sources: as `export_pipeline` has them, like all that follows.
        defaults: by column.
        description: one sentence.
        training_set: what the rows were taken from.
        never_null: columns whose feature always has a value.

    Raises:
        ExportError: it is not an ONNX file, or rows and file don't fit.
    """
    rows = Rows.of(columns)
    named = {str(name): plain(value) for name, value in (defaults or {}).items()}
    check_named([column.name for column in rows.columns], sources=sources or {}, defaults=named)
    check_labels(labels, len(rows))
    proto, known = without_maps(parse(model))
    content: bytes = (
        proto.SerializeToString(deterministic=True) if known or isinstance(model, ModelProto) else content_of(model)
    )
    session = open_file(content)
    inputs = input_columns(session, rows, dict(sources or {}), named)
    rows = rows.retyped({column.name: column.dtype for column in inputs})
    score, label = output_names(session)
    raw = _raw(content, inputs, rows, score)
    inferred_task, inferred_classes = infer_meaning(raw, labels, task, list(classes) if classes is not None else known)
    file = File(content, inputs, inferred_task, inferred_classes, [score, label])
    answered = _answered(file, rows, label)
    warnings = _nulls(file, rows, inputs, set(never_null))
    manifest = {
        "task": inferred_task.name,
        "classes": inferred_classes,
        "inputs": [msgspec.to_builtins(column) for column in inputs],
        "score_output": score,
        "label_output": label if inferred_task.has_classes else "",
        "description": description,
        "tolerance": _TOLERANCE,
        "parity": {"rows": len(rows), "worst": 0.0, "reference": "the file itself"},
        "warnings": warnings,
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        **record(content, rows.frame, labels, training_set, has_classes=inferred_task.has_classes),
    }
    scored = np.flatnonzero(np.isfinite(answered.scores).all(axis=1))
    if not len(scored):
        raise ExportError(
            "the file gives no row a finite score: check that the columns are in the order that it takes them in"
        )
    chosen = sorted(np.random.default_rng(0).permutation(scored)[:SAMPLE_ROWS].tolist())
    sample = {"inputs": rows.subset(chosen).inputs(), **answered.sample(inferred_task, chosen)}
    return Export(content, manifest, sample)


def _raw(content: bytes, inputs: Sequence[InputColumn], rows: Rows, output: str) -> NDArray[Any]:
    return np.asarray(_run(lambda: File(content, inputs, REGRESSION, [], [output]).outputs(rows.inputs())[0]))


def _run(call: Any) -> Any:
    try:
        return call()
    except (*FOREIGN, ScoreError) as error:
        raise ExportError(f"the file can't answer the rows: {' '.join(str(error).split())[:200]}") from error


def _answered(file: File, rows: Rows, label: str) -> Scores:
    answered: Scores = _run(lambda: file.answer(rows.inputs()))
    if label and len(answered.labels) != len(rows):
        raise ExportError(f"the file's output {label} does not hold one label per row")
    return answered


def _nulls(file: File, rows: Rows, inputs: Sequence[InputColumn], never_null: set[str]) -> list[str]:
    """Warnings of features that are null for new entities, where the file then gives no score."""
    messages = []
    few = rows.subset(list(range(min(20, len(rows)))))
    for index, column in enumerate(inputs):
        if column.source == "request" or column.default is not None or column.name in never_null:
            continue
        try:
            scored = bool(np.isfinite(file.answer(few.replaced(index, None).inputs()).scores).all())
        except (*FOREIGN, ScoreError):
            scored = False
        if not scored:
            messages.append(
                f"fails for new entities: {column.name} ({column.source}) is null there, and the row is refused; add a "
                f"default: defaults={{{column.name!r}: ...}}"
            )
    return messages
