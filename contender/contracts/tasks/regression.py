"""A number; the score is the predicted value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contender.contracts.tasks.task import ScoreArray, Task, parse_number
from contender.contracts.values import Outcome, Scalar, Score


@dataclass(frozen=True)
class Regression(Task):
    """A number."""

    def takes_classes(self, count: int) -> bool:
        """Whether there are none."""
        return count == 0

    def tensor_widths(self, classes: int) -> frozenset[int]:  # noqa: ARG002 - there are none
        """One number."""
        return frozenset({1})

    def score_width(self, classes: int) -> int:  # noqa: ARG002
        """One number, the predicted value."""
        return 1

    def labels_from(self, scores: ScoreArray, classes: Sequence[Scalar]) -> list[Scalar]:  # noqa: ARG002
        """The value itself."""
        return [float(value) for value in scores[:, 0]]

    def answered_scores(self, scores: ScoreArray) -> list[Score]:
        """The value."""
        answered: list[Score] = scores[:, -1].tolist()
        return answered

    def score_fault(self, scores: Sequence[Score], classes: int) -> str:  # noqa: ARG002
        """Anything but one number per row."""
        return "must be one number per row" if any(isinstance(score, list) for score in scores) else ""

    def outcome_value(self, outcome: Outcome, classes: Sequence[Scalar]) -> float | None:  # noqa: ARG002
        """The number, or the one that a text spells; None for booleans and other text."""
        value = parse_number(outcome) if isinstance(outcome, str) else outcome
        return None if value is None or isinstance(value, bool) else float(value)

    def fallback_fault(self, value: float) -> str:
        """Anything but a finite number."""
        return "" if math.isfinite(value) else "is not a finite number"

    def fallback_label(self, value: float, classes: Sequence[Scalar]) -> Scalar:  # noqa: ARG002
        """The value itself."""
        return value


REGRESSION = Regression("regression", "the predicted value", has_classes=False)
