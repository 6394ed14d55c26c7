"""The base of tasks: their scores, the labels that follow from scores, and the outcomes that they take."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contender.contracts.values import Outcome, Scalar, Score

EVEN = 0.5
BEYOND = 1e-3
"""How far a 32-bit sum of shares may leave [0, 1]; a number farther out is not a probability."""

ScoreArray = NDArray[np.float64]


class ScoreError(ValueError):
    """The tensors are not what a model of this task answers; the message says why, without a subject."""


@dataclass(frozen=True)
class Task(ABC):
    """A kind of question that models answer.

    `score_words` says what a score is, for people. `negative_outcome` is the outcome that a missing label may stand
    for (`missing: negative`), None where there is none.
    """

    name: str
    score_words: str
    has_classes: bool
    negative_outcome: float | None = None

    @abstractmethod
    def takes_classes(self, count: int) -> bool:
        """Whether a model of this task may have so many classes."""

    def takes_outputs(self, count: int) -> bool:
        """Whether a model of this task may predict so many things of a row."""
        return count == 1

    @abstractmethod
    def tensor_widths(self, classes: int) -> frozenset[int]:
        """Numbers per row that an ONNX file's score tensor may have."""

    @abstractmethod
    def score_width(self, classes: int) -> int:
        """Numbers per row that are answered: 1 for a single number."""

    def read_scores(self, raw: NDArray[Any], classes: Sequence[Scalar], rows: int) -> ScoreArray:
        """A score tensor as scores, shape (rows, classes), or (rows, 1) without classes.

        Probabilities are within [0, 1]. Rows without a finite score stay so.

        Raises:
            ScoreError: the shape does not fit the rows and classes, or a score of a classifier is not a probability.
        """
        width = raw.size // rows if rows else 0
        fits = width in self.tensor_widths(len(classes))
        if raw.size != rows * width or not fits or (raw.ndim and len(raw) != rows):
            raise ScoreError(f"has {rows} rows, and the model answers with the shape {raw.shape}")
        scores: ScoreArray = np.asarray(raw, dtype=np.float64).reshape(rows, width)
        return _probabilities(scores) if self.has_classes else scores

    def labels_of(self, scores: ScoreArray, classes: Sequence[Scalar], raw: NDArray[Any] | None) -> list[Scalar]:
        """The label of each row: what the label tensor `raw` holds, else what the scores say.

        Raises:
            ScoreError: the label tensor holds something other than the classes, or not one label for each row.
        """
        if raw is None or not self.has_classes:
            return self.labels_from(scores, classes)
        if raw.size != len(scores):
            raise ScoreError(f"has {len(scores)} rows, and the model answers with labels of the shape {raw.shape}")
        known = {spelling: label for label in classes for spelling in _spellings(label)}
        try:
            return [known[label] for label in raw.reshape(-1).tolist()]
        except KeyError as error:
            raise ScoreError(
                f"has a row that the model labels {error.args[0]!r}, which is not one of its classes"
            ) from error

    @abstractmethod
    def labels_from(self, scores: ScoreArray, classes: Sequence[Scalar]) -> list[Scalar]:
        """The label of each row by its scores alone, shape (rows, classes) or (rows, 1)."""

    @abstractmethod
    def answered_scores(self, scores: ScoreArray) -> list[Score]:
        """The scores as callers get them."""

    @abstractmethod
    def score_fault(self, scores: Sequence[Score], classes: int) -> str:
        """What is wrong with recorded scores of a model with so many classes (0: unknown); empty when nothing is."""

    @abstractmethod
    def outcome_value(self, outcome: Outcome, classes: Sequence[Scalar]) -> float | None:
        """An outcome as metrics take it: the number of its class, or the value. None where it can't be one."""

    @abstractmethod
    def fallback_fault(self, value: float) -> str:
        """What is wrong with a score that is answered when no model can; empty when nothing is."""

    @abstractmethod
    def fallback_label(self, value: float, classes: Sequence[Scalar]) -> Scalar:
        """The label of such a score."""


def is_probability(score: float) -> bool:
    """Whether a number is a probability, but for rounding."""
    return -BEYOND <= score <= 1.0 + BEYOND


def class_number(outcome: Outcome, classes: Sequence[Scalar]) -> float | None:
    """The number of the outcome's class; None for an outcome that is not a class.

    A text stands for the number or truth value that it spells in JSON, and those for the class that is spelled so,
    unless the outcome itself is a class.
    """
    if outcome in classes:
        return float(classes.index(outcome))
    for spelling in _other_spellings(outcome):
        if spelling in classes:
            return float(classes.index(spelling))
    return None


def parse_number(text: str) -> float | bool | None:
    """The number or truth value that a text spells in JSON; None for any other text."""
    try:
        value: float | bool = _JSON_NUMBERS.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return value


def _other_spellings(outcome: Outcome) -> list[Scalar]:
    """The other ways to write an outcome, none of which loses anything."""
    if isinstance(outcome, str):
        value = parse_number(outcome)
        return [] if value is None else [value]
    if isinstance(outcome, bool):
        return [str(outcome).lower(), str(outcome)]
    return [*_spellings(outcome), str(outcome)]


def _probabilities(scores: ScoreArray) -> ScoreArray:
    outside = (scores < -BEYOND) | (scores > 1 + BEYOND)
    if outside.any():
        raise ScoreError(f"has a row that the model answers with {scores[outside][0]:.6g}, which is not a probability")
    scores = np.clip(scores, 0.0, 1.0)
    return np.column_stack([1.0 - scores, scores]) if scores.shape[1] == 1 else scores


def _spellings(label: Scalar) -> list[Scalar]:
    """How a label tensor may hold a class: numbers as they are, 1 for true, and anything as text."""
    if isinstance(label, float) and label.is_integer():
        return [label, str(int(label))]
    return [label, str(label)]


_JSON_NUMBERS = msgspec.json.Decoder(bool | int | float)
