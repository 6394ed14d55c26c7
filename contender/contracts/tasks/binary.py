"""Two classes; the score is the probability of the last one."""

from collections.abc import Sequence
from dataclasses import dataclass

from contender.contracts.tasks.task import EVEN, ScoreArray, Task, class_number, is_probability
from contender.contracts.values import Outcome, Scalar, Score

_CLASSES = 2


@dataclass(frozen=True)
class Binary(Task):
    """Two classes."""

    def takes_classes(self, count: int) -> bool:
        """Whether there are exactly two."""
        return count == _CLASSES

    def tensor_widths(self, classes: int) -> frozenset[int]:  # noqa: ARG002 - two in any case
        """Both probabilities, or that of the last class alone."""
        return frozenset({1, _CLASSES})

    def score_width(self, classes: int) -> int:  # noqa: ARG002
        """One number, the probability of the last class."""
        return 1

    def labels_from(self, scores: ScoreArray, classes: Sequence[Scalar]) -> list[Scalar]:
        """The likelier class, the first one of a tie."""
        # Both probabilities may be off by half a last digit: the last one alone decides.
        return [classes[int(likely)] for likely in (scores[:, -1] > EVEN).tolist()]

    def answered_scores(self, scores: ScoreArray) -> list[Score]:
        """The probability of the last class."""
        answered: list[Score] = scores[:, -1].tolist()
        return answered

    def score_fault(self, scores: Sequence[Score], classes: int) -> str:
        """Anything but one probability per row, or another number of classes than two."""
        if classes not in (0, _CLASSES):
            return f"belongs to two classes, not to {classes}"
        if any(isinstance(score, list) for score in scores):
            return "must be one number per row"
        fits = all(not isinstance(score, list) and is_probability(score) for score in scores)
        return "" if fits else "must hold probabilities"

    def outcome_value(self, outcome: Outcome, classes: Sequence[Scalar]) -> float | None:
        """0 or 1."""
        return class_number(outcome, classes or (0, 1))

    def fallback_fault(self, value: float) -> str:
        """Anything but a probability strictly between 0 and 1."""
        return "" if 0 < value < 1 else "is not a probability between 0 and 1"

    def fallback_label(self, value: float, classes: Sequence[Scalar]) -> Scalar:
        """The likelier class."""
        return classes[-1 if value > EVEN else 0]


BINARY = Binary("binary", "the probability of the last class", has_classes=True, negative_outcome=0.0)
