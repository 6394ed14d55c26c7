"""What a model's output tensors say: scores within their bounds, and the label of each row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.events import Scalar, Task

EVEN = 0.5
BEYOND = 1e-3
"""How far a 32-bit sum of shares may leave [0, 1]; what is farther out is no probability."""

Scores = NDArray[np.float64]


class ScoreError(ValueError):
    """The tensors are not what a model of this task answers; the message says why, without a subject."""


def read_scores(raw: NDArray[Any], task: Task, classes: Sequence[Scalar], rows: int) -> Scores:
    """Probabilities within [0, 1], shape (rows, classes), or the values of a regression, shape (rows, 1).

    A binary model may give both probabilities or that of its last class alone. Rows without a finite score stay so.

    Raises:
        ScoreError: the shape does not fit the rows and classes, or a score of a classifier is no probability.
    """
    width = raw.size // rows if rows else 0
    fitting = {"binary": {1, 2}, "multiclass": {len(classes)}, "regression": {1}}[task]
    if raw.size != rows * width or width not in fitting or (raw.ndim and len(raw) != rows):
        raise ScoreError(f"has {rows} rows, and the model answers with the shape {raw.shape}")
    scores: Scores = np.asarray(raw, dtype=np.float64).reshape(rows, width)
    if task == "regression":
        return scores
    outside = (scores < -BEYOND) | (scores > 1 + BEYOND)
    if outside.any():
        raise ScoreError(f"has a row that the model answers with {scores[outside][0]:.6g}, which is no probability")
    scores = np.clip(scores, 0.0, 1.0)
    return np.column_stack([1.0 - scores, scores]) if width == 1 else scores


def labels_of(scores: Scores, task: Task, classes: Sequence[Scalar], raw: NDArray[Any] | None) -> list[Scalar]:
    """The label of each row: what the label tensor holds, else the likeliest class, the first where several are.

    Raises:
        ScoreError: the label tensor holds something other than the classes, or not one label for each row.
    """
    if task == "regression":
        return [float(value) for value in scores[:, 0]]
    if raw is None:
        # Both probabilities of a binary model may be off by half a last digit: the last one alone decides.
        chosen = scores[:, -1] > EVEN if task == "binary" else scores.argmax(axis=1)
        return [classes[index] for index in chosen.astype(int).tolist()]
    if raw.size != len(scores):
        raise ScoreError(f"has {len(scores)} rows, and the model answers with labels of the shape {raw.shape}")
    known = {key: value for value in classes for key in _spellings(value)}
    try:
        return [known[label] for label in raw.reshape(-1).tolist()]
    except KeyError as error:
        raise ScoreError(f"has a row that the model labels {error.args[0]!r}, which is none of the classes") from error


def _spellings(value: Scalar) -> list[Scalar]:
    """How a label tensor may hold a class: numbers as they are, 1 for true, and anything as text."""
    return [value, str(value)] if not isinstance(value, float) or not value.is_integer() else [value, str(int(value))]
