"""What every metric must say: its tasks, its direction, which sums hold it, and its value per row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray

from contender.contracts.tasks import Task
from contender.contracts.values import OUTCOME, FeedbackKind

Floats = NDArray[np.float64]
RowValues = Callable[[Floats, Floats], Floats]
"""Outcomes and scores of rows to one value per row, shape (rows,).

Outcomes, shape (rows,), are what `Task.outcome_value` gives. Scores are shape (rows,), or (rows, classes) where the
task has one number per class.
"""

ClippedRowValues = Callable[[Floats, Floats, float], Floats]
"""As `RowValues`, and the least probability that counts."""

LimitedRowValues = Callable[[Floats, Floats, float], Floats]
"""As `RowValues`, and the largest error that counts."""

ValueRange = Callable[[str, float], tuple[float, float]]
"""The name of a task and the least probability that counts to the lowest and the highest value of a row."""


@dataclass(frozen=True, slots=True, eq=False)
class ServedRows:
    """What is known of rows with their answers; the arrays have shape (rows,).

    `latency_ms` is not a number where none was recorded. `degraded` and `fallbacks` are 0 or 1: whether defaults or a
    fallback stood in, and whether another variant answered than the one assigned.
    """

    latency_ms: Floats
    degraded: Floats
    fallbacks: Floats


ServedValues = Callable[[ServedRows], Floats]
"""Rows to one value per row, shape (rows,); not a number where there is none."""

LOG_LOSS_CLIP = 1e-7
"""The least probability that counts unless an experiment declares another: scores are 32-bit."""

MEAN = "mean"
"""The metric is a mean over rows."""

AREA, AVERAGE_PRECISION, CALIBRATION = "area", "average_precision", "calibration"
"""The metric is computed from how the scores of each class are distributed."""

PERCENTILE = "percentile"
"""The metric is the 95th percentile over rows, of milliseconds."""

LABELLED, SERVED = "labelled", "served"
"""Two ledgers (`Metric.ledger`): rows that have an outcome, and all rows that were answered."""


@dataclass(frozen=True, eq=False)
class Metric:
    """How good predictions were.

    `sums` names the mergeable sums that hold the metric, such as `MEAN`. `values` has the value per row by the name of
    each task of a mean, and `clipped_values` where it depends on the least probability that counts. `label_values`
    takes the labels that were served, as class numbers, in place of the scores: for a metric that is about the model's
    own decision. `limited_values` are in place of `values` where it depends on the largest error that counts.
    `scored_tasks` are the tasks of a metric that takes more than outcomes and scores. `stored_with` names another
    metric whose stored totals serve this one too. A metric that may not decide (`may_decide`) is shown alone.
    `value_range` bounds the values of rows, where something does, and `limited_range` by the largest error.

    `needs` names the field of a design without which an experiment does not have the metric; empty: every one has it.

    `feedback` is the kind of report that the metric is about, None for one that is known with the answer: then
    `served_values` has the value per row. The value of a report that is no outcome is the number reported. A metric
    `of_all_rows` counts a row without a report as 0, as it does where nobody complains; others leave it out. One that
    holds reports `against_answer` counts a label as 0 where it is the one that was answered, and any other as 1.
    `report_word` is what one report is called; empty: as its kind.
    """

    name: str
    words: str
    lower_is_better: bool = True
    sums: str = MEAN
    values: Mapping[str, RowValues] = field(default_factory=dict)
    label_values: RowValues | None = None
    scored_tasks: Sequence[Task] = ()
    clipped_values: Mapping[str, ClippedRowValues] = field(default_factory=dict)
    stored_with: str = ""
    may_decide: bool = True
    value_range: ValueRange | None = None
    feedback: FeedbackKind | None = OUTCOME
    served_values: ServedValues | None = None
    of_all_rows: bool = False
    against_answer: bool = False
    report_word: str = ""
    needs: str = ""
    limited_values: Mapping[str, LimitedRowValues] = field(default_factory=dict)
    limited_range: Callable[[float], tuple[float, float]] | None = None

    @property
    def ledger(self) -> str:
        """Which rows its sums are over: those with an outcome, all that were answered, or those with such a report."""
        if self.feedback == OUTCOME:
            return LABELLED
        return SERVED if self.feedback is None or self.of_all_rows else self.feedback

    @property
    def late_ledger(self) -> str:
        """Which rows have such a report after their window alone; those with a late outcome are counted apart."""
        return f"late {self.feedback}"

    @property
    def has_pairs(self) -> bool:
        """Whether it is a mean over labelled rows: the differences of two scores of the same rows can be summed."""
        return self.sums == MEAN and self.ledger == LABELLED

    @property
    def totals_name(self) -> str:
        """The name under which its totals are stored."""
        return self.stored_with or self.name

    def row_values(
        self, task: str, outcomes: Floats, scores: Floats, clip: float = LOG_LOSS_CLIP, error_limit: float | None = None
    ) -> Floats:
        """The value of each row of a mean, shape (rows,).

        Raises:
            KeyError: the task lacks the metric, or it takes more than outcomes and scores.
        """
        if limited := self.limited_values.get(task):
            return limited(outcomes, scores, inf if error_limit is None else error_limit)
        clipped = self.clipped_values.get(task)
        return clipped(outcomes, scores, clip) if clipped else self.values[task](outcomes, scores)

    def range_of(self, task: str, *, clip: float, error_limit: float | None) -> tuple[float, float] | None:
        """The lowest and the highest value of a row; None where nothing bounds it."""
        if self.limited_range and error_limit is not None:
            return self.limited_range(error_limit)
        return self.value_range(task, clip) if self.value_range else None

    def has(self, task: Task) -> bool:
        """Whether models of the task have this metric; one that is about no outcome suits every task."""
        has_values = task.name in {**self.values, **self.limited_values} or task in self.scored_tasks
        return self.feedback != OUTCOME or has_values

    def is_declared(self, design: object) -> bool:
        """Whether a design, or a block of its predictions, has what the metric needs."""
        return not self.needs or bool(getattr(design, self.needs))


def spelling_of(metrics: Sequence[Metric]) -> msgspec.Meta:
    """The names of those that may decide, as JSON spells them."""
    return msgspec.Meta(extra_json_schema={"enum": [metric.name for metric in metrics if metric.may_decide]})
