"""What the reports for one row come to: the label that counts, and how the others are accounted for."""

from dataclasses import dataclass

from services.feedback_service.domain.entries import BlockEntry, RowReports
from shared.events import Outcome

LARGEST_ERROR = 1e75
"""The largest error of a regression that is taken: the square of its square is still a number."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One row at one look. `value` is the outcome as the losses take it; None while no label counts.

    Every report is exactly one of: the label, a correction that another one overrode, late, refused, or a duplicate.
    """

    value: float | None = None
    corrections: int = 0
    late: int = 0
    refused: int = 0
    duplicates: int = 0


def judge_row(block: BlockEntry, index: int, history: RowReports) -> Judgement:
    """Judge the reports for row `index` of `block`: the newest valid one given within the window is the label.

    Of two that were given at the same time the one later in the topic counts.
    """
    values = [(report, outcome_value(block, index, report.outcome)) for report in history.distinct()]
    valid = [(report, value) for report, value in values if value is not None]
    deadline = block.time[index] + block.window_s
    timely = [(report, value) for report, value in valid if report.given_at <= deadline]
    late, refused = len(valid) - len(timely), len(values) - len(valid) + history.refused
    _, duplicates = history.counted()
    if not timely:
        return Judgement(None, 0, late, refused, duplicates)
    _, label = max(timely, key=lambda pair: (pair[0].given_at, pair[0].offset, pair[0].index))
    return Judgement(label, len(timely) - 1, late, refused, duplicates)


def outcome_value(block: BlockEntry, index: int, outcome: Outcome) -> float | None:
    """The outcome as the losses take it: 0 or 1, a class number, or a value; None where the model can't mean it."""
    if block.task == "regression":
        score = block.score[index]
        if isinstance(outcome, bool | str) or isinstance(score, list):
            return None
        return float(outcome) if abs(outcome - score) <= LARGEST_ERROR else None
    classes = block.classes or list(range(_width(block, index)))
    return float(classes.index(outcome)) if outcome in classes else None


def _width(block: BlockEntry, index: int) -> int:
    score = block.score[index]
    return len(score) if isinstance(score, list) else 2
