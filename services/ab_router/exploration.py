"""Which labels will be seen, given the answers: all, those that the answer lets see, and some by exploration."""

import random
from collections.abc import Callable, Iterable

from contender.contracts.formula import Formula, FormulaError
from services.ab_router.domain.formulas import answer_names, is_label_seen, parsed
from services.ab_router.rows import AssignedRow, ScoredRow


class Exploration:
    """Decides at random of which rows the application is asked to see the label whatever the answer.

    Args:
        draw: a random number in [0, 1), another one for each row.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw

    def decide(self, rows: Iterable[ScoredRow]) -> None:
        """Set `explore` and `label_probability` of rows whose experiment declares which labels are seen."""
        for row in rows:
            experiment = row.assigned.experiment
            if experiment is None or not row.assigned.counts or not experiment.labels_seen_if:
                continue
            condition = _condition(row.assigned, experiment.labels_seen_if)
            if condition and is_label_seen(condition, row.score, row.label, row.inputs):
                continue
            row.explore = self._draw() < experiment.exploration_share
            row.label_probability = experiment.exploration_share if row.explore else 0.0


def _condition(assigned: AssignedRow, text: str) -> Formula | None:
    """The condition under which an answer's label is seen; None where this release can't read it."""
    variants = assigned.experiment.variants if assigned.experiment else []
    try:
        return parsed(text, answer_names([assigned.model.versions[variant.version] for variant in variants]))
    except FormulaError:
        return None
