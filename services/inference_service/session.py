"""An ONNX session of a model version: it turns columns into scores and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

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

from contender.contracts.columns import TensorFeed
from contender.contracts.inference_service import InputColumn, ModelVersion
from contender.contracts.tasks import ScoreArray, ScoreError, TaskName, task_named
from contender.contracts.values import Scalar, Score
from services.inference_service.errors import AnswerError, ManifestError, UnsafeModelError

RUN_ROWS = 256
"""Most rows of one run: what a trial has measured holds for no more. Larger runs gain nothing."""
FAILURES = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NotImplemented, RuntimeException)
_FLOATS = {"tensor(float)", "tensor(double)"}
_FITTING: dict[str, set[str]] = {
    "float": _FLOATS,
    "integer": _FLOATS | {"tensor(int64)"},
    "boolean": _FLOATS | {"tensor(int64)", "tensor(bool)"},
    "string": {"tensor(string)"},
}
"""Per type of a column the tensors that take every value of it."""
_LABELS = {"tensor(int64)", "tensor(string)", "tensor(bool)"}


@dataclass(frozen=True, slots=True)
class Scores:
    """Per row the score and the model's own label."""

    scores: list[Score]
    labels: list[Scalar]


class Session:
    """One model version, ready to run.

    Args:
        content: the ONNX file.
        schema: the columns, in the order of a model that takes them as one matrix.
        task: what the scores mean.
        classes: labels of the probabilities' columns.
        score_output: the file's output of scores; empty means its first tensor of floats.
        label_output: the file's output of labels; empty means that the likeliest class is the label.

    Raises:
        UnsafeModelError: onnxruntime refuses the file.
        ManifestError: the file's inputs or outputs don't fit the schema and the task.
    """

    def __init__(
        self,
        content: bytes,
        schema: Sequence[InputColumn],
        task: TaskName,
        classes: Sequence[Scalar],
        *,
        score_output: str = "",
        label_output: str = "",
    ) -> None:
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
        self._task = task_named(task)
        self._classes = list(classes)
        self._feed = self._read_inputs(list(schema))
        outputs = [self._score_output(score_output)]
        if label_output:
            outputs.append(self._label_output(label_output))
        self._outputs = outputs

    @classmethod
    def of(cls, content: bytes, version: ModelVersion) -> Self:
        """Open a version's file; raises as the class does."""
        return cls(
            content,
            version.inputs,
            version.task,
            version.classes,
            score_output=version.score_output,
            label_output=version.label_output,
        )

    def answer(self, arrays: Mapping[str, NDArray[Any]], options: onnxruntime.RunOptions | None = None) -> Scores:
        """Run rows; `arrays` holds one array of shape (rows,) per column, and `options` can end the run.

        Raises:
            AnswerError: the model fails on the rows, or gives them no finite scores.
        """
        try:
            raw = self._session.run(self._outputs, self._feed.tensors(arrays), options)
        except (*FAILURES, MemoryError) as error:
            raise AnswerError.at("inputs", f"can't be answered by the model: {error}") from error
        rows = len(next(iter(arrays.values())))
        try:
            scores = self._task.read_scores(raw[0], self._classes, rows)
            _check_finite(scores)
            labels = self._task.labels_of(scores, self._classes, raw[1] if len(raw) > 1 else None)
        except ScoreError as error:
            raise AnswerError.at("inputs", str(error)) from error
        return Scores(self._task.answered_scores(scores), labels)

    def _read_inputs(self, columns: Sequence[InputColumn]) -> TensorFeed:
        """Which tensor takes which column: one each, or a matrix all of them."""
        inputs = self._session.get_inputs()
        types = {tensor.name: str(tensor.type) for tensor in inputs}
        feed = TensorFeed.of(columns, inputs)
        names = [column.tensor or column.name for column in columns]
        if not feed.matrix and (set(types) != set(names) or len(names) > len(types)):
            differing = ", ".join(sorted(set(types) ^ set(names))) or "columns that share a tensor"
            raise ManifestError.at("manifest.inputs", f"and the ONNX file's inputs differ in: {differing}")
        for column in columns:
            kind = types[feed.matrix or column.tensor or column.name]
            if kind not in _FITTING[column.dtype]:
                raise ManifestError.at("manifest.inputs", f"has {column.name} as {column.dtype}, ONNX as {kind}")
        width = inputs[0].shape[-1] if feed.matrix and inputs[0].shape else None
        if isinstance(width, int) and width != len(columns):
            raise ManifestError.at("manifest.inputs", f"has {len(columns)} columns, the ONNX file takes {width}")
        return feed

    def _score_output(self, name: str) -> str:
        outputs = self._session.get_outputs()
        if name and name not in {output.name for output in outputs}:
            raise ManifestError.at("manifest.score_output", f"is {name!r}, which is not an output of the ONNX file")
        for output in outputs:
            if output.type in _FLOATS and name in ("", output.name):
                width = output.shape[-1] if len(output.shape) > 1 else None
                fits = not isinstance(width, int) or width in self._task.tensor_widths(len(self._classes))
                if self._classes and not fits:
                    raise ManifestError.at("manifest.classes", f"has {len(self._classes)}, the ONNX file gives {width}")
                return str(output.name)
        if name:
            raise ManifestError.at("manifest.score_output", f"is {name!r}, which is not a tensor of floats")
        raise ManifestError.at("onnx", "has no output of floats for the scores; export a classifier without ZipMap")

    def _label_output(self, name: str) -> str:
        types = {output.name: output.type for output in self._session.get_outputs()}
        if name not in types:
            raise ManifestError.at("manifest.label_output", f"is {name!r}, which is not an output of the ONNX file")
        if types[name] not in _LABELS or not self._task.has_classes:
            raise ManifestError.at("manifest.label_output", f"is {name!r}, which is not an output of class labels")
        return name


def _check_finite(scores: ScoreArray) -> None:
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        raise AnswerError.at("inputs", f"has no finite score in row {finite.argmin()}: are there nulls in it?")
