"""Exports a ready ONNX file: finds which input takes which column and what the outputs mean, and makes a sample."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from contender.contracts.columns import fault_of
from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import TEXT_CHARACTERS
from contender.contracts.tasks import REGRESSION, TASKS, ScoreError, Task, TaskName, fitting_task, task_named
from contender.contracts.values import Dtype, Scalar
from contender.errors import ExportError
from contender.registration.checks import check_labels, check_named
from contender.registration.exporting import Export, Recorded
from contender.registration.failures import FOREIGN
from contender.registration.file import File, Scores, open_session
from contender.registration.manifest import code, data, environment
from contender.registration.parity import SAMPLE_ROWS
from contender.registration.pipelines import plain
from contender.registration.rows import Rows

_DTYPES: dict[str, Dtype] = {
    "tensor(float)": "float",
    "tensor(double)": "float",
    "tensor(int64)": "integer",
    "tensor(bool)": "boolean",
    "tensor(string)": "string",
}
_FLOATS = ("tensor(float)", "tensor(double)")
_LABELS = ("tensor(int64)", "tensor(string)", "tensor(bool)")
_TOLERANCE = 1e-5
_PAIR = 2


def is_file(model: Any) -> bool:
    """Whether a model is an ONNX file: a path, bytes, or a ModelProto."""
    return isinstance(model, str | Path | bytes | ModelProto)


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
    """Make a ready ONNX file an export: its columns get names and types, and its own answers to the rows a sample.

    Args:
        model: a path, bytes, or a ModelProto.
        columns: rows of it, shape (rows, inputs): named as the file's inputs are, or in the order of its one matrix.
        labels: what is true of the rows, shape (rows,); says which classes there are.
        task: the name of its task; default: inferred from the file's outputs and the labels.
        classes: the labels of the probabilities' columns; default: inferred.
        sources: as `export_pipeline` has them, like all that follows.
        defaults: by column.
        description: one sentence.
        training_set: what the rows were taken from.
        never_null: columns whose feature always has a value.

    Raises:
        ExportError: it is no ONNX file, or rows and file don't fit.
    """
    rows = Rows.of(columns)
    named = {str(name): plain(value) for name, value in (defaults or {}).items()}
    check_named([column.name for column in rows.columns], sources=sources or {}, defaults=named)
    check_labels(labels, len(rows))
    proto, known = _without_maps(_parsed(model))
    content: bytes = (
        proto.SerializeToString(deterministic=True) if known or isinstance(model, ModelProto) else _bytes(model)
    )
    session = _opened(content)
    inputs = _inputs(session, rows, dict(sources or {}), named)
    rows = rows.retyped({column.name: column.dtype for column in inputs})
    score, label = _outputs(session)
    raw = _raw(content, inputs, rows, score)
    inferred_task, inferred_classes = _meaning(raw, labels, task, list(classes) if classes is not None else known)
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
        "onnx_sha256": hashlib.sha256(content).hexdigest(),
        "data": data(rows.frame, labels),
        **({"training_set": dict(training_set.manifest)} if training_set is not None else {}),
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "environment": environment(),
        "code": code(),
    }
    scored = np.flatnonzero(np.isfinite(answered.scores).all(axis=1))
    if not len(scored):
        raise ExportError("the file gives no row a finite score: are the columns in the order that it takes them in?")
    chosen = sorted(np.random.default_rng(0).permutation(scored)[:SAMPLE_ROWS].tolist())
    sample = {"inputs": rows.subset(chosen).inputs(), **answered.sample(inferred_task, chosen)}
    return Export(content, manifest, sample)


def _bytes(model: Any) -> bytes:
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise ExportError(f"{model} can't be read: {error.strerror}") from error


def _parsed(model: Any) -> ModelProto:
    if isinstance(model, ModelProto):
        copied = ModelProto()
        copied.CopyFrom(model)
        return copied
    try:
        return onnx.load_model_from_string(_bytes(model))
    except (DecodeError, ValueError) as error:
        raise ExportError(f"{model if isinstance(model, str | Path) else 'the model'} is not an ONNX file") from error


def _without_maps(proto: ModelProto) -> tuple[ModelProto, list[Scalar]]:
    """The model whose probabilities are a tensor, where a ZipMap made maps of them; and the classes it named."""
    classes: list[Scalar] = []
    for node in [node for node in proto.graph.node if node.op_type == "ZipMap"]:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        classes = list(attributes.get("classlabels_int64s", []))
        classes = classes or [name.decode() for name in attributes.get("classlabels_strings", [])]
        proto.graph.node.remove(node)
        for index, output in enumerate(proto.graph.output):
            if output.name == node.output[0]:
                tensor = helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, len(classes)])
                proto.graph.output[index].CopyFrom(tensor)
    return proto, classes


def _opened(content: bytes) -> onnxruntime.InferenceSession:
    try:
        return open_session(content)
    except FOREIGN as error:
        raise ExportError(f"onnxruntime does not load the file: {' '.join(str(error).split())[:200]}") from error


def _inputs(
    session: onnxruntime.InferenceSession, rows: Rows, sources: Mapping[str, str], defaults: Mapping[str, Any]
) -> list[InputColumn]:
    tensors = {tensor.name: tensor for tensor in session.get_inputs()}
    names = [column.name for column in rows.columns]
    matrix = next(iter(tensors)) if len(tensors) == 1 and list(tensors) != names else ""
    width = tensors[matrix].shape[-1] if matrix and len(tensors[matrix].shape) > 1 else None
    if matrix and isinstance(width, int) and width != len(names):
        raise ExportError(
            f"the file takes a matrix of {width} columns, and the rows have {len(names)}: {', '.join(names)}"
        )
    if not matrix and sorted(tensors) != sorted(names):
        raise ExportError(
            f"the file takes {', '.join(sorted(tensors))}, and the rows have {', '.join(sorted(names))}: name the "
            "columns as the file's inputs"
        )
    inputs = []
    for column in rows.columns:
        kind = tensors[matrix or column.name].type
        if kind not in _DTYPES:
            raise ExportError(
                f"the file takes {column.name} as {kind}; float, double, int64, bool and string are served"
            )
        dtype = _DTYPES[kind]
        if (dtype == "string") != (column.dtype == "string") or (dtype == "integer" and not column.whole):
            raise ExportError(f"column {column.name} is {column.dtype}, and the file takes it as {kind}")
        if dtype == "integer" and column.dtype == "boolean":
            dtype = "boolean"
        source, default = sources.get(column.name, "request"), defaults.get(column.name)
        null = dtype in ("float", "string") and (column.nulls > 0 or source != "request")
        served = InputColumn(column.name, dtype, source, default, not null and default is None)
        if default is not None and (fault := fault_of(served, default, TEXT_CHARACTERS)):
            raise ExportError(f"the default of column {column.name}, {default!r}, {fault}: give a {dtype}")
        inputs.append(served)
    return inputs


def _outputs(session: onnxruntime.InferenceSession) -> tuple[str, str]:
    """The outputs that hold scores and labels; empty where there are no labels."""
    outputs = session.get_outputs()
    scores = [output.name for output in outputs if output.type in _FLOATS]
    if not scores:
        held = ", ".join(f"{output.name} ({output.type})" for output in outputs)
        raise ExportError(f"the file has no output of floats for the scores; its outputs are {held}")
    labels = [output.name for output in outputs if output.type in _LABELS]
    return scores[0], labels[0] if labels else ""


def _meaning(
    raw: NDArray[Any], labels: Any, name: TaskName | None, classes: Sequence[Any] | None
) -> tuple[Task, list[Scalar]]:
    """The task and its classes; with two labels a single score between 0 and 1 is a probability."""
    if name is not None and name not in [known.name for known in TASKS]:
        raise ExportError(f"task is {name!r}; it is one of {', '.join(known.name for known in TASKS)}")
    width = raw.size // len(raw)
    seen = sorted(set(_scalars("labels", labels)), key=str) if labels is not None else []
    known_classes = _scalars("classes", classes) if classes else sorted(seen, key=_order)
    if len(set(known_classes)) < len(known_classes):
        raise ExportError(f"classes name a class twice: {known_classes}")
    task = _inferred(raw, width, len(known_classes)) if name is None else task_named(name)
    if not task.has_classes:
        return task, []
    if not task.takes_classes(len(known_classes)) or width not in task.tensor_widths(len(known_classes)):
        count = max(width, _PAIR)
        if classes or labels is not None:
            raise ExportError(
                f"the file tells {count} classes apart, and there are {len(known_classes)}: give classes=[...]"
            )
        known_classes = list(range(count))
    return task, known_classes


def _inferred(raw: NDArray[Any], width: int, classes: int) -> Task:
    are_probabilities = bool(((raw >= 0) & (raw <= 1)).all())
    is_classifier = width > 1 or (classes == _PAIR and are_probabilities)
    return fitting_task(max(width, _PAIR) if is_classifier else 0)


def _scalars(what: str, values: Any) -> list[Any]:
    scalars = [plain(value) for value in np.ravel(np.asarray(values, dtype=object)).tolist()]
    for value in scalars:
        if not isinstance(value, bool | int | float | str):
            raise ExportError(f"{what} hold {value!r}: give numbers, text or booleans")
    return scalars


def _order(value: Any) -> Any:
    return (isinstance(value, str), value)


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
        raise ExportError(f"the file's output {label} holds no label for each row")
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
