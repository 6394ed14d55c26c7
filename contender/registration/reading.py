"""Reads a ready ONNX file: which input takes which column, and which outputs hold scores and labels."""

from pathlib import Path
from typing import Any

import onnxruntime
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, load_model_from_string

from contender.contracts.inference_service import InputColumn
from contender.contracts.values import Dtype, Scalar
from contender.errors import ExportError
from contender.registration.checks import check_default
from contender.registration.failures import FOREIGN
from contender.registration.file import open_session
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


def is_file(model: Any) -> bool:
    """Whether a model is an ONNX file: a path, bytes, or a ModelProto."""
    return isinstance(model, str | Path | bytes | ModelProto)


def content_of(model: Any) -> bytes:
    """The bytes of a file.

    Raises:
        ExportError: the path can't be read.
    """
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise ExportError(f"{model} can't be read: {error.strerror}") from error


def parse(model: Any) -> ModelProto:
    """The model that a file holds; a model that is parsed already is copied.

    Raises:
        ExportError: the file holds no model.
    """
    if isinstance(model, ModelProto):
        copied = ModelProto()
        copied.CopyFrom(model)
        return copied
    try:
        return load_model_from_string(content_of(model))
    except (DecodeError, ValueError) as error:
        raise ExportError(f"{model if isinstance(model, str | Path) else 'the model'} is not an ONNX file") from error


def without_maps(proto: ModelProto) -> tuple[ModelProto, list[Scalar]]:
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


def open_file(content: bytes) -> onnxruntime.InferenceSession:
    """Load a file.

    Raises:
        ExportError: onnxruntime does not load it.
    """
    try:
        return open_session(content)
    except FOREIGN as error:
        raise ExportError(f"onnxruntime does not load the file: {' '.join(str(error).split())[:200]}") from error


def input_columns(
    session: onnxruntime.InferenceSession, rows: Rows, sources: dict[str, str], defaults: dict[str, Any]
) -> list[InputColumn]:
    """The columns as the file takes them.

    Raises:
        ExportError: rows and file don't fit, or a default does not fit its column.
    """
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
        check_default(served)
        inputs.append(served)
    return inputs


def output_names(session: onnxruntime.InferenceSession) -> tuple[str, str]:
    """The names of the outputs that hold scores and labels; the second is empty where there are no labels."""
    outputs = session.get_outputs()
    scores = [output.name for output in outputs if output.type in _FLOATS]
    if not scores:
        held = ", ".join(f"{output.name} ({output.type})" for output in outputs)
        raise ExportError(f"the file has no output of floats for the scores; its outputs are {held}")
    labels = [output.name for output in outputs if output.type in _LABELS]
    return scores[0], labels[0] if labels else ""
