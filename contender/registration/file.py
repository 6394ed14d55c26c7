"""An ONNX file that scores rows as a service would."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contender.contracts.columns import TensorFeed, array_of
from contender.contracts.inference_service import InputColumn
from contender.contracts.tasks import ScoreArray, Task
from contender.contracts.values import Scalar

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
        self._session = open_session(onnx)
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


def open_session(onnx: bytes) -> onnxruntime.InferenceSession:
    """Load a file; raises whatever onnxruntime raises when it can't."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
