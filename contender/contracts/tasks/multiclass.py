"""Three classes or more; the score is one probability per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from contender.contracts.tasks.task import ScoreArray, Task, class_number, is_probability
from contender.contracts.values import Outcome, Scalar, Score

_FEWEST = 3


@dataclass(frozen=True)
class Multiclass(Task):
    """Three classes or more."""

    def takes_classes(self, count: int) -> bool:
        """Whether there are three or more."""
        return count >= _FEWEST

    def tensor_widths(self, classes: int) -> frozenset[int]:
        """One probability per class."""
        return frozenset({classes})

    def score_width(self, classes: int) -> int:
        """One number per class."""
        return classes

    def labels_from(self, scores: ScoreArray, classes: Sequence[Scalar]) -> list[Scalar]:
        """The likeliest class, the first of equals."""
        return [classes[index] for index in scores.argmax(axis=1).tolist()]

    def answered_scores(self, scores: ScoreArray) -> list[Score]:
        """The probabilities."""
        answered: list[Score] = scores.tolist()
        return answered

    def score_fault(self, scores: Sequence[Score], classes: int) -> str:
        """Rows of unequal length, or numbers that are not probabilities."""
        widths = {len(score) if isinstance(score, list) else 0 for score in scores}
        if 0 in widths or widths - {classes or max(widths, default=0)}:
            return "must have one probability per class"
        numbers = chain.from_iterable(score for score in scores if isinstance(score, list))
        return "" if all(map(is_probability, numbers)) else "must hold probabilities"

    def outcome_value(self, outcome: Outcome, classes: Sequence[Scalar]) -> float | None:
        """The number of the class."""
        return class_number(outcome, classes)

    def fallback_fault(self, value: float) -> str:  # noqa: ARG002 - no number will do
        """Every value is wrong: one number is not a list of probabilities."""
        return "is not accepted for a multiclass model"

    def fallback_label(self, value: float, classes: Sequence[Scalar]) -> Scalar:  # noqa: ARG002
        """Never asked, since no fallback is accepted: the number itself."""
        return value


MULTICLASS = Multiclass("multiclass", "one probability per class", has_classes=True)
