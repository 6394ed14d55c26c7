"""Labels rows from their reports: which report is the label, how the others are counted, and the metrics."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from contender.contracts.metrics import LABELLED, VALUE, metrics_of
from contender.contracts.tasks import task_named
from services.feedback_service.domain.entries import CONVERTING, BlockEntry
from services.feedback_service.domain.formulas import ASSUMED_CURVE, CURVE, curve_steps, row_value
from services.feedback_service.domain.reports import RowReports
from services.feedback_service.domain.sums.exact import RowAdditions, row_additions
from services.feedback_service.domain.sums.metric_sums import LabelledRows


@dataclass(frozen=True, slots=True)
class RowLabel:
    """One row at one look. `value` is the outcome as metrics take it; None while no label counts.

    Every report is exactly one of: the label, a correction that another one overrode, late, refused, or a duplicate.
    """

    value: float | None = None
    corrections: int = 0
    late: int = 0
    refused: int = 0
    duplicates: int = 0


@dataclass(slots=True)
class RowChanges:
    """What rows of one block and one cohort add, or take back.

    `late` counts the rows by the unit's bucket that have a label after their window and none within it. `ledgers` are
    what they add to further sums (`Cell.ledgers`).
    """

    counts: Counter[str] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    labelled: list[RowAdditions] = field(default_factory=list)
    assumed: list[RowAdditions] = field(default_factory=list)
    ledgers: dict[str, list[RowAdditions]] = field(default_factory=dict)


def label_rows(block: BlockEntry, rows: Sequence[tuple[int, RowReports]], *, metrics: bool = True) -> RowChanges:
    """Label rows of a block: pairs (row of the block, its reports). Without `metrics` they are only counted."""
    changes = RowChanges()
    labelled: list[tuple[int, float]] = []
    assumed: list[tuple[int, float]] = []
    negative = task_named(block.task).negative_outcome if block.missing == "negative" else None
    for index, reports in rows:
        label = label_row(block, index, reports)
        if label.value is not None:
            labelled.append((index, label.value))
        elif negative is not None and block.has_value(index, negative):
            assumed.append((index, negative))
        if label.value is None and label.late and block.rules >= CONVERTING:
            changes.late[int(block.buckets[index])] += 1
        if reports.kept:
            for name in ("corrections", "late", "refused", "duplicates"):
                changes.counts[name] += getattr(label, name)
    changes.counts["labelled"] += len(labelled)
    if metrics:
        changes.labelled = _additions(block, labelled)
        changes.assumed = _additions(block, assumed)
        changes.ledgers = {CURVE: _curve(block, labelled), ASSUMED_CURVE: _curve(block, assumed)}
    return changes


def label_row(block: BlockEntry, index: int, reports: RowReports) -> RowLabel:
    """The label of row `index` of `block`: the newest valid outcome that was given within the window.

    Of two that were given at the same time the one later in the topic counts. An outcome known longer than
    `block.early_s` before its prediction is refused.
    """
    if not reports.kept:
        return RowLabel()
    predicted_at = float(block.times[index])
    values = [
        (report.given_at, position, block.outcome_value(index, report.outcome))
        for position, report in enumerate(reports.kept)
    ]
    valid = [value for value in values if value[2] is not None and value[0] >= predicted_at - block.early_s]
    timely = [value for value in valid if value[0] <= predicted_at + block.window_s]
    late, refused = len(valid) - len(timely), len(values) - len(valid) + reports.refused
    if not timely:
        return RowLabel(None, 0, late, refused, reports.duplicates)
    newest = max(timely, key=lambda value: value[:2])
    return RowLabel(newest[2], len(timely) - 1, late, refused, reports.duplicates)


def _additions(block: BlockEntry, rows: Sequence[tuple[int, float]]) -> list[RowAdditions]:
    if not rows:
        return []
    indexes = [index for index, _ in rows]
    labelled = LabelledRows(
        task=block.task,
        outcomes=np.array([value for _, value in rows]),
        scores=block.scores[indexes],
        labels=block.labels[indexes].astype(np.float64) if block.label else None,
        buckets=block.buckets[indexes],
        log_loss_clip=block.log_loss_clip,
        error_limit=block.error_limit,
        known={VALUE.name: np.array([_value(block, *row) for row in rows])} if block.value else {},
    )
    metrics = [metric for metric in metrics_of(task_named(block.task), block) if metric.ledger == LABELLED]
    return row_additions(metrics, labelled)


def _value(block: BlockEntry, index: int, outcome: float) -> float | None:
    return row_value(block.value, block.formula_values(index, outcome))


def _curve(block: BlockEntry, rows: Sequence[tuple[int, float]]) -> list[RowAdditions]:
    """What rows of a binary model add to the curve over thresholds; all of them in one bucket."""
    if not block.value or block.width or not task_named(block.task).has_classes:
        return []
    steps = [curve_steps(block.value, block.formula_values(index, outcome)) for index, outcome in rows]
    return [RowAdditions(0, [(CURVE, index, units) for index, units in row]) for row in steps if row]
