"""One ONNX session: columns in, class probabilities or values and labels out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NotImplemented,  # noqa: A004 - an operator has no kernel for its types
    RuntimeException,
)

from services.inference_service.errors import AnswerError, ManifestError, UnsafeModelError
from shared.events import InputColumn, Scalar, Task

FAILURES = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented, RuntimeException)
_TENSOR_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}
_FLOATS = {"tensor(float)", "tensor(double)"}
_FITTING: dict[str, set[str]] = {
    "float": _FLOATS,
    "integer": _FLOATS | {"tensor(int64)"},
    "boolean": _FLOATS | {"tensor(int64)", "tensor(bool)"},
    "string": {"tensor(string)"},
}
"""Per type of a column the tensors that take every value of it."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Per row: the score (see shared.events.PredictionBlock) and the label that follows from it."""

    scores: list[float | list[float]]
    labels: list[Scalar]


class Session:
    """One model version, ready to run.

    Args:
        content: the ONNX file.
        schema: the columns, in the order of a model that takes them as one matrix.
        task: what the scores mean.
        classes: labels of the probabilities' columns.

    Raises:
        UnsafeModelError: onnxruntime refuses the file.
        ManifestError: the file's inputs or outputs don't fit the schema and the task.
    """

    def __init__(self, content: bytes, schema: Sequence[InputColumn], task: Task, classes: Sequence[Scalar]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the calls come in parallel already
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False  # what one large run took would be kept for good
        options.add_session_config_entry("session.load_model_format", "ONNX")  # and never a flatbuffer of its own
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except FAILURES as error:
            raise UnsafeModelError.at("onnx", f"is refused by onnxruntime: {error}") from error
        self._task = task
        self._classes = list(classes)
        self._columns = [column.name for column in schema]
        tensors = {one.name: str(one.type) for one in self._session.get_inputs()}
        names = set(tensors)
        self._matrix = next(iter(names)) if len(names) == 1 and names != set(self._columns) else None
        if self._matrix is None and names != set(self._columns):
            odd = ", ".join(sorted(names ^ set(self._columns)))
            raise ManifestError.at("manifest.inputs", f"and the ONNX file's inputs differ in: {odd}")
        for column in schema:
            tensor = tensors[self._matrix or column.name]
            if tensor not in _FITTING[column.dtype]:
                raise ManifestError.at("manifest.inputs", f"has {column.name} as {column.dtype}, ONNX as {tensor}")
        self._types = {name: _TENSOR_TYPES[tensor] for name, tensor in tensors.items()}
        self._output = self._score_output()

    def answer(self, arrays: Mapping[str, NDArray[Any]], options: onnxruntime.RunOptions | None = None) -> Answers:
        """Run rows; `arrays` holds one array of shape (rows,) per column, and `options` can end the run.

        Raises:
            AnswerError: the model fails on the rows, or gives them no finite scores.
        """
        scores = self._scores(arrays, options)
        if self._task == "regression":
            values = scores[:, 0].tolist()
            return Answers(values, values)
        if self._task == "binary":
            positive = scores[:, -1]
            labels = [self._classes[index] for index in (positive >= 0.5).astype(int).tolist()]  # noqa: PLR2004
            return Answers(positive.tolist(), labels)
        return Answers(scores.tolist(), [self._classes[index] for index in scores.argmax(axis=1).tolist()])

    def _scores(
        self, arrays: Mapping[str, NDArray[Any]], options: onnxruntime.RunOptions | None
    ) -> NDArray[np.float64]:
        """Shape (rows, classes); for a regression (rows, 1)."""
        try:
            [raw] = self._session.run([self._output], self._feed(arrays), options)
        except (*FAILURES, MemoryError) as error:
            raise AnswerError.at("inputs", f"can't be answered by the model: {error}") from error
        rows, width = len(next(iter(arrays.values()))), len(self._classes) or 1
        if raw.size != rows * width or len(raw) != rows:
            raise AnswerError.at("inputs", f"has {rows} rows, and the model answers with the shape {raw.shape}")
        scores: NDArray[np.float64] = raw.reshape(rows, width).astype(np.float64)
        finite = np.isfinite(scores).all(axis=1)
        if not finite.all():
            raise AnswerError.at("inputs", f"has no finite score in row {finite.argmin()}: are there nulls in it?")
        return scores

    def _feed(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._matrix is not None:
            stacked = np.column_stack([arrays[name] for name in self._columns])
            return {self._matrix: stacked.astype(self._types[self._matrix])}
        return {name: arrays[name].astype(self._types[name]).reshape(-1, 1) for name in self._columns}

    def _score_output(self) -> str:
        outputs = self._session.get_outputs()
        for output in outputs:
            if output.type in _FLOATS:
                width = output.shape[-1] if output.shape else None
                if self._classes and isinstance(width, int) and width != len(self._classes):
                    raise ManifestError.at("manifest.classes", f"has {len(self._classes)}, the ONNX file gives {width}")
                return str(output.name)
        raise ManifestError.at("onnx", "gives no tensor of scores; a classifier is exported without ZipMap")
