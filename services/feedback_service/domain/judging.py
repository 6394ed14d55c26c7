"""What the reports for rows come to: the label that counts, how the other reports are accounted for, and the losses."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from contender.contracts.metrics import MEAN, metrics_of
from contender.contracts.tasks import task_named
from contender.contracts.values import Outcome
from services.feedback_service.domain.entries import BlockEntry
from services.feedback_service.domain.exact import exact
from services.feedback_service.domain.histograms import BINS
from services.feedback_service.domain.reports import RowReports

LARGEST_ERROR = 1e75
"""The largest error of a regression that is taken: the square of its square is still a number."""

EARLY_S = 2.0
"""How long before its prediction an outcome may be known: clocks that differ, and times cut to whole seconds."""


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


@dataclass(frozen=True, slots=True)
class LossRow:
    """What one labelled row adds: by metric its loss and the square of it, in units of `exact`."""

    bucket: int
    losses: list[tuple[str, int, int]]
    score_bin: int | None
    positive: bool


@dataclass(slots=True)
class JudgedRows:
    """What rows of one block and one cohort add up to, or take back."""

    counts: Counter[str] = field(default_factory=Counter)
    labelled: list[LossRow] = field(default_factory=list)
    assumed: list[LossRow] = field(default_factory=list)


def judge_rows(block: BlockEntry, rows: Sequence[tuple[int, RowReports]], *, losses: bool = True) -> JudgedRows:
    """Judge rows of a block: pairs (row of the block, what was reported for it). Without `losses` they are counted."""
    judged = JudgedRows()
    labelled: list[tuple[int, float]] = []
    assumed: list[tuple[int, float]] = []
    negative = block.missing == "negative" and block.task == "binary"
    for index, reports in rows:
        judgement = judge_row(block, index, reports)
        if judgement.value is not None:
            labelled.append((index, judgement.value))
        elif negative:
            assumed.append((index, 0.0))
        if reports.kept:
            for name in ("corrections", "late", "refused", "duplicates"):
                judged.counts[name] += getattr(judgement, name)
    judged.counts["labelled"] += len(labelled)
    if losses:
        judged.labelled = _loss_rows(block, labelled)
        judged.assumed = _loss_rows(block, assumed)
    return judged


def judge_row(block: BlockEntry, index: int, reports: RowReports) -> Judgement:
    """Judge the reports for row `index` of `block`: the newest valid one given within the window is the label.

    Of two that were given at the same time the one later in the topic counts. An outcome known before its prediction
    is refused.
    """
    if not reports.kept:
        return Judgement()
    predicted_at = float(block.times[index])
    values = [
        (report.given_at, position, outcome_value(block, index, report.outcome))
        for position, report in enumerate(reports.kept)
    ]
    valid = [one for one in values if one[2] is not None and one[0] >= predicted_at - EARLY_S]
    timely = [one for one in valid if one[0] <= predicted_at + block.window_s]
    late, refused = len(valid) - len(timely), len(values) - len(valid) + reports.refused
    if not timely:
        return Judgement(None, 0, late, refused, reports.duplicates)
    label = max(timely, key=lambda one: one[:2])[2]
    return Judgement(label, len(timely) - 1, late, refused, reports.duplicates)


def outcome_value(block: BlockEntry, index: int, outcome: Outcome) -> float | None:
    """The outcome as the losses take it: 0 or 1, a class number, or a value; None where the model can't mean it."""
    if block.task == "regression":
        if isinstance(outcome, bool | str):
            return None
        return float(outcome) if abs(outcome - float(block.scores[index])) <= LARGEST_ERROR else None
    classes = block.classes or list(range(block.width or 2))
    return float(classes.index(outcome)) if outcome in classes else None


def _loss_rows(block: BlockEntry, rows: Sequence[tuple[int, float]]) -> list[LossRow]:
    if not rows:
        return []
    indexes = [index for index, _ in rows]
    outcomes = np.array([value for _, value in rows])
    scores = block.scores[indexes]
    labels = block.labels[indexes].astype(np.float64) if block.label else None
    values: dict[str, list[float]] = {}
    for metric in metrics_of(task_named(block.task)):
        if metric.sums != MEAN:
            continue
        if labels is not None and metric.label_values is not None:
            values[metric.name] = metric.label_values(outcomes, labels).tolist()
        else:
            values[metric.name] = metric.values[block.task](outcomes, scores).tolist()
    bins: list[int | None] = [None] * len(rows)
    if block.task == "binary":
        bins = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1).tolist()
    buckets = block.buckets[indexes].tolist()
    return [
        LossRow(
            buckets[position],
            [(name, exact(losses[position]), exact(losses[position] ** 2)) for name, losses in values.items()],
            bins[position],
            value == 1.0,
        )
        for position, (_, value) in enumerate(rows)
    ]
