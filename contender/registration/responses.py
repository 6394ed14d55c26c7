"""The scores and labels of a pipeline, and those of a file that runs the same rows as a service would."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from sklearn.base import is_classifier

from contender.contracts.columns import TensorFeed, array_of
from contender.contracts.inference_service import InputColumn
from contender.contracts.limits import INTEGERS
from contender.contracts.tasks import ScoreArray, Task, fitting_task
from contender.contracts.values import Scalar
from contender.errors import ExportError
from contender.registration.conversion import FOREIGN
from contender.registration.rows import Rows

_BATCH = 2_000
"""Rows that a file scores in one run."""


@dataclass(frozen=True)
class Scores:
    """Scores, shape (rows, classes) or (rows, 1), and labels, one a row."""

    scores: ScoreArray
    labels: list[Scalar]

    def sample(self, task: Task, rows: Sequence[int]) -> dict[str, list[Any]]:
        """Scores of some rows, and labels where the task has classes, as a sample holds them."""
        labels = {"labels": [self.labels[row] for row in rows]} if task.has_classes else {}
        return {"scores": list(task.answered_scores(self.scores[rows])), **labels}


def task_of(pipeline: Any, rows: Rows) -> tuple[Task, list[Scalar]]:
    """The task that a pipeline was fitted to, and its classes.

    Raises:
        ExportError: no task fits its targets or its classes.
    """
    if not is_classifier(pipeline):
        try:
            return fitting_task(0, _count_outputs(pipeline, rows)), []
        except ValueError as error:
            raise _several_targets(pipeline) from error
    if any(np.ndim(label) for label in pipeline.classes_) or getattr(pipeline, "multilabel_", False):
        raise _several_targets(pipeline)
    classes = [plain(label) for label in pipeline.classes_]
    if any(isinstance(label, int) and abs(label) >= INTEGERS for label in classes):
        raise ExportError("the labels hold whole numbers beyond 64 bits: fit on text, such as labels.astype(str)")
    if odd := [label for label in classes if not isinstance(label, bool | int | float | str)]:
        raise ExportError(
            f"the labels are {type(odd[0]).__name__}, which JSON does not hold: fit on numbers, text or booleans"
        )
    if len(classes) < 2:  # noqa: PLR2004 - there is nothing to tell apart
        raise ExportError(f"the labels hold one class alone, {classes[0]!r}: fit on rows of two classes at least")
    return fitting_task(len(classes)), classes


def _count_outputs(pipeline: Any, rows: Rows) -> int:
    try:
        return int(np.asarray(pipeline.predict(rows.subset([0]).native())).size)
    except FOREIGN:
        return 1  # the comparison of all rows reports what is wrong


def _several_targets(pipeline: Any) -> ExportError:
    return ExportError(
        f"{type(pipeline).__name__} predicts several targets: a version has one, so fit and register a model for each"
    )


def plain(value: Any) -> Any:
    """As JSON takes it."""
    return value.item() if isinstance(value, np.generic) else value


def of_pipeline(pipeline: Any, rows: Rows, task: Task) -> Scores:
    """The pipeline's own scores and labels; raises whatever the pipeline raises."""
    native = rows.native()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        predicted = np.asarray(pipeline.predict(native))
        if not task.has_classes:
            values = predicted.astype(np.float64).reshape(len(rows), -1)
            return Scores(values, task.labels_from(values, []))
        if predicted.size != len(rows):
            raise _several_targets(pipeline)
        scores = np.asarray(pipeline.predict_proba(native), dtype=np.float64)
    return Scores(scores, [plain(label) for label in predicted])


class File:
    """An open ONNX file and how its columns are fed.

    Raises whatever onnxruntime raises when it can't load it.
    """

    def __init__(
        self,
        onnx: bytes,
        inputs: Sequence[InputColumn],
        task: Task,
        classes: Sequence[Scalar],
        outputs: Sequence[str],
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._inputs = list(inputs)
        self._task = task
        self._classes = list(classes)
        self._outputs = [name for name in outputs if name]
        self._feed = TensorFeed.of(self._inputs, self._session.get_inputs())

    def answer(self, values: Mapping[str, Sequence[Scalar]]) -> Scores:
        """The file's scores and labels of rows by column, as callers send them."""
        parts = [self._read(arrays) for arrays in self._batches(values)]
        return Scores(
            np.concatenate([part.scores for part in parts]), [label for part in parts for label in part.labels]
        )

    def outputs(self, values: Mapping[str, Sequence[Scalar]]) -> list[NDArray[Any]]:
        """The output tensors themselves."""
        parts = [self._session.run(self._outputs, self._feed.tensors(arrays)) for arrays in self._batches(values)]
        return [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]

    def _batches(self, values: Mapping[str, Sequence[Scalar]]) -> Iterator[dict[str, NDArray[Any]]]:
        arrays = {column.name: array_of(column, values[column.name]) for column in self._inputs}
        for start in range(0, len(next(iter(values.values()))), _BATCH):
            yield {name: array[start : start + _BATCH] for name, array in arrays.items()}

    def _read(self, arrays: Mapping[str, NDArray[Any]]) -> Scores:
        rows = len(next(iter(arrays.values())))
        raw = self._session.run(self._outputs, self._feed.tensors(arrays))
        scores = self._task.read_scores(raw[0], self._classes, rows)
        return Scores(scores, self._task.labels_of(scores, self._classes, raw[1] if len(raw) > 1 else None))
