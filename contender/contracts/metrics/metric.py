"""What every metric must say: its tasks, its direction, which sums hold it, and its value per row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contender.contracts.tasks import Task

Floats = NDArray[np.float64]
RowValues = Callable[[Floats, Floats], Floats]
"""Outcomes and scores of rows to one value per row, shape (rows,).

Outcomes, shape (rows,), are what `Task.outcome_value` gives. Scores are shape (rows,), or (rows, classes) where the
task has one number per class.
"""

MEAN = "mean"
"""The metric is a mean over rows."""

SCORE_HISTOGRAM = "score_histogram"
"""The metric is computed from how the scores of each class are distributed."""


@dataclass(frozen=True, eq=False)
class Metric:
    """How good predictions were.

    `sums` names the mergeable sums that hold the metric, such as `MEAN`. `values` has the value per row by the name of
    each task of a mean. `label_values` takes the labels that were served, as class numbers, in place of the scores:
    for a metric that is about the model's own decision. `scored_tasks` are the tasks of a metric that is not a mean.
    """

    name: str
    words: str
    lower_is_better: bool = True
    sums: str = MEAN
    values: Mapping[str, RowValues] = field(default_factory=dict)
    label_values: RowValues | None = None
    scored_tasks: Sequence[Task] = ()

    def has(self, task: Task) -> bool:
        """Whether models of the task have this metric."""
        return task.name in self.values or task in self.scored_tasks
