"""ONNX sessions: columns in, class probabilities or values out."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException

from services.inference_service.errors import ManifestError, UnsafeModelError
from shared.events import InputColumn, Scalar, Task

FAILURES = (Fail, InvalidArgument, InvalidGraph, RuntimeException)
_TENSOR_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}


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
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except FAILURES as error:
            raise UnsafeModelError.at("onnx", f"is refused by onnxruntime: {error}") from error
        self._task = task
        self._classes = list(classes)
        self._columns = [column.name for column in schema]
        self._types = {one.name: _TENSOR_TYPES.get(one.type, np.float32) for one in self._session.get_inputs()}
        names = set(self._types)
        self._matrix = next(iter(names)) if len(names) == 1 and names != set(self._columns) else None
        if self._matrix is None and names != set(self._columns):
            odd = ", ".join(sorted(names ^ set(self._columns)))
            raise ManifestError.at("manifest.inputs", f"and the ONNX file's inputs differ in: {odd}")
        self._output = self._score_output()

    def answer(self, arrays: Mapping[str, NDArray[Any]]) -> Answers:
        """Run rows; `arrays` holds one array of shape (rows,) per column."""
        [raw] = self._session.run([self._output], self._feed(arrays))
        if self._task == "regression":
            values = raw.reshape(-1).astype(np.float64).tolist()
            return Answers(values, values)
        probabilities = raw.astype(np.float64)
        if self._task == "binary":
            positive = probabilities[:, -1]
            labels = [self._classes[index] for index in (positive >= 0.5).astype(int).tolist()]  # noqa: PLR2004
            return Answers(positive.tolist(), labels)
        return Answers(
            probabilities.tolist(), [self._classes[index] for index in probabilities.argmax(axis=1).tolist()]
        )

    def _feed(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._matrix is not None:
            stacked = np.column_stack([arrays[name] for name in self._columns])
            return {self._matrix: stacked.astype(self._types[self._matrix])}
        return {name: arrays[name].astype(self._types[name]).reshape(-1, 1) for name in self._columns}

    def _score_output(self) -> str:
        outputs = self._session.get_outputs()
        if self._task == "regression":
            return str(outputs[0].name)
        for output in outputs:
            if output.type in ("tensor(float)", "tensor(double)"):
                width = output.shape[-1] if output.shape else None
                if isinstance(width, int) and width != len(self._classes):
                    raise ManifestError.at("manifest.classes", f"has {len(self._classes)}, the ONNX file gives {width}")
                return str(output.name)
        raise ManifestError.at("onnx", "gives no tensor of probabilities; export it without ZipMap")


class Sessions:
    """Open sessions by version; the longest unused is closed first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[str, Session] = OrderedDict()

    def get(self, version: str, load: Callable[[], Session]) -> Session:
        """The version's session, opened by `load` when it is not open."""
        session = self._open.get(version)
        if session is None:
            session = self._open[version] = load()
        self._open.move_to_end(version)
        while len(self._open) > self._limit:
            self._open.popitem(last=False)
        return session
