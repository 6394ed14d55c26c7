"""Labels rows from their reports: which report is the label, how the others are counted, and the metrics."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np

from contender.contracts.metrics import (
    LABELLED,
    MEAN,
    SERVED,
    VALUE,
    ServedRows,
    declared_metrics,
    metric_about,
    metrics_of,
)
from contender.contracts.tasks import task_named
from contender.contracts.values import OUTCOME, FeedbackKind, Scalar
from services.feedback_service.domain.entries import CONVERTING, SERVING, BlockEntry
from services.feedback_service.domain.formulas import ASSUMED_CURVE, CURVE, curve_steps, row_value
from services.feedback_service.domain.reports import RowReports
from services.feedback_service.domain.segment_values import segment_additions, segment_metrics
from services.feedback_service.domain.sums import SUMS
from services.feedback_service.domain.sums.exact import (
    ExactSums,
    RowAdditions,
    report_additions,
    row_additions,
    served_sums,
)
from services.feedback_service.domain.sums.metric_sums import LabelledRows


@dataclass(frozen=True, slots=True)
class RowLabel:
    """The reports of one kind on a row at one look. `value` is what metrics take; None while no report counts.

    Every report is exactly one of: the label, a correction that another one overrode, late, refused, or a duplicate.
    `late_value` is the newest of the late ones. Of the refused ones `early` are from before the prediction, and
    `hidden` outcomes of a row that stands for none.
    """

    value: float | None = None
    corrections: int = 0
    late: int = 0
    refused: int = 0
    duplicates: int = 0
    late_value: float | None = None
    early: int = 0
    hidden: int = 0


@dataclass(slots=True)
class RowChanges:
    """What rows of one block and one cohort add, or take back.

    `late` counts the rows by the unit's bucket that have a label after their window and none within it, each by its
    weight. `ledgers` are what they add to further sums (`Cell.ledgers`).
    """

    counts: Counter[str] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    labelled: list[RowAdditions] = field(default_factory=list)
    assumed: list[RowAdditions] = field(default_factory=list)
    ledgers: defaultdict[str, list[RowAdditions]] = field(default_factory=lambda: defaultdict(list))


LabelledAdditions = Callable[[BlockEntry, Sequence[tuple[int, float]]], list[RowAdditions]]
"""What rows of a block add, as pairs (row of the block, outcome)."""


def label_rows(
    block: BlockEntry,
    rows: Sequence[tuple[int, RowReports]],
    known: Mapping[str, Sequence[str]] | None = None,
    *,
    metrics: bool = True,
    additions: LabelledAdditions | None = None,
) -> RowChanges:
    """Label rows of a block: pairs (row of the block, its reports). Without `metrics` they are only counted.

    `known` are the values that the experiment's segments tell apart, by key. `additions` says what rows add to the
    metrics; by default it is each metric's value.
    """
    changes = RowChanges()
    labelled: list[tuple[int, float]] = []
    assumed: list[tuple[int, float]] = []
    signals: defaultdict[FeedbackKind, list[tuple[int, RowLabel]]] = defaultdict(list)
    negative = task_named(block.task).negative_outcome if block.missing == "negative" else None
    weights = block.weights
    for index, reports in rows:
        label = label_row(block, index, reports)
        if label.value is not None:
            labelled.append((index, label.value))
        elif negative is not None and weights[index]:
            assumed.append((index, negative))
        if label.value is None and label.late and block.rules >= CONVERTING:
            changes.late[int(block.buckets[index])] += int(weights[index])
        if reports.kept:
            _count(changes, label)
        for kind in {report.kind for report in reports.kept if report.kind != OUTCOME}:
            signal = label_row(block, index, reports, kind)
            _count(changes, signal)
            changes.counts["signals"] += signal.value is not None
            signals[kind].append((index, signal))
    changes.counts["labelled"] += len(labelled)
    if additions is not None:
        changes.labelled, changes.assumed = additions(block, labelled), additions(block, assumed)
    elif metrics:
        _add_metrics(changes, block, labelled, assumed, known or {})
        for kind, found in signals.items():
            _add_signals(changes, block, kind, found)
    return changes


def _add_metrics(
    changes: RowChanges,
    block: BlockEntry,
    labelled: Sequence[tuple[int, float]],
    assumed: Sequence[tuple[int, float]],
    known: Mapping[str, Sequence[str]],
) -> None:
    of_labelled, of_assumed = _worth(block, labelled), _worth(block, assumed)
    changes.labelled = _additions(block, of_labelled)
    changes.assumed = _additions(block, of_assumed)
    if block.value:
        changes.ledgers[CURVE] += _curve(block, of_labelled)
        changes.ledgers[ASSUMED_CURVE] += _curve(block, of_assumed)
    if block.segments:
        summed = segment_metrics(declared_metrics(task_named(block.task), block), block.metric)
        indexes = [index for index, _ in (*of_labelled.rows, *of_assumed.rows)]
        added = zip(indexes, (*changes.labelled, *changes.assumed), strict=True)
        for name, additions in segment_additions(block.segments, known, summed, added).items():
            changes.ledgers[name] += additions


def _count(changes: RowChanges, label: RowLabel) -> None:
    for name in ("corrections", "late", "refused", "duplicates", "early", "hidden"):
        changes.counts[name] += getattr(label, name)


def label_row(block: BlockEntry, index: int, reports: RowReports, kind: FeedbackKind = OUTCOME) -> RowLabel:
    """The label of row `index` of `block`: the newest valid report of a kind that was given within the window.

    Of two that were given at the same time the one later in the topic counts. A report known longer than
    `block.early_s` before its prediction is refused, and so is an outcome of a row that stands for none. What a row has
    of duplicates, and of reports beyond those kept, is counted with its outcomes.
    """
    if not reports.kept:
        return RowLabel()
    predicted_at = float(block.times[index])
    values = [
        (report.given_at, position, block.report_value(index, report.outcome, kind))
        for position, report in enumerate(reports.kept)
        if report.kind == kind
    ]
    if kind == OUTCOME and block.weight and not block.weights[index]:
        hidden, duplicates = len(values) + reports.refused, reports.duplicates
        return RowLabel(refused=hidden, duplicates=duplicates, hidden=hidden)
    timed = [value for value in values if value[0] >= predicted_at - block.early_s]
    valid = [value for value in timed if value[2] is not None]
    timely = [value for value in valid if value[0] <= predicted_at + block.window_s]
    late = [value for value in valid if value[0] > predicted_at + block.window_s]
    refused, duplicates = len(values) - len(valid), 0
    if kind == OUTCOME:
        refused, duplicates = refused + reports.refused, reports.duplicates
    return RowLabel(
        value=_newest(timely),
        corrections=max(0, len(timely) - 1),
        late=len(late),
        refused=refused,
        duplicates=duplicates,
        late_value=_newest(late),
        early=len(values) - len(timed),
    )


def _newest(values: Sequence[tuple[float, int, float | None]]) -> float | None:
    """The value given last, of pairs (time, position in the topic, value); None where there is none."""
    return max(values, key=lambda value: value[:2])[2] if values else None


def served_rows(block: BlockEntry, rows: Sequence[int]) -> ExactSums:
    """What rows of a block add to the ledger SERVED once they are answered."""
    if block.rules < SERVING:
        return ExactSums()
    indexes = list(rows)
    answered = ServedRows(
        latency_ms=block.latencies_ms[indexes],
        degraded=block.degraded_rows[indexes].astype(np.float64),
        fallbacks=np.full(len(indexes), float(block.fallback)),
    )
    return served_sums(metrics_of(task_named(block.task), SERVED), block.buckets[indexes], answered)


def _add_signals(
    changes: RowChanges, block: BlockEntry, kind: FeedbackKind, signals: Sequence[tuple[int, RowLabel]]
) -> None:
    """Add the rows' reports of a kind, and which of them came after the window alone.

    A share of all rows is of those in the ledger SERVED, to which a row itself was added with its answer.
    """
    metric = metric_about(kind)
    if metric.of_all_rows and block.rules < SERVING:
        return

    def is_report(value: float | None) -> TypeGuard[float]:
        return value is not None and not (metric.of_all_rows and value == 0.0)

    counted = [(index, label.value) for index, label in signals if is_report(label.value)]
    buckets, weight = block.buckets, 0 if metric.of_all_rows else 1
    if counted:
        rows = [(int(buckets[index]), value) for index, value in counted]
        changes.ledgers[metric.ledger] += report_additions(metric, rows, weight=weight)
    late = [index for index, label in signals if is_report(label.late_value) and not is_report(label.value)]
    if late:
        changes.ledgers[metric.late_ledger] += [RowAdditions(int(buckets[index]), []) for index in late]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a block with their outcomes; where it has a formula, what that may use of them and their values."""

    rows: Sequence[tuple[int, float]]
    named: Sequence[Mapping[str, Scalar]] = ()
    values: Sequence[float] = ()


def _worth(block: BlockEntry, rows: Sequence[tuple[int, float]]) -> _Rows:
    """The rows that the block's formula has a value for; all of them where it has no formula."""
    if not block.value or not rows:
        return _Rows(rows)
    named = block.formula_values(rows)
    values = [row_value(block.value, row) for row in named]
    kept = [(*row, value) for *row, value in zip(rows, named, values, strict=True) if value is not None]
    return _Rows(*zip(*kept, strict=True)) if kept else _Rows(())


def differences(
    served: BlockEntry, shadow: BlockEntry, rows: Sequence[tuple[int, float]], sign: int
) -> list[RowAdditions]:
    """What rows that two variants have scored add: in each mean, `sign` times the shadow's value minus the served one.

    Args:
        served: the block of the rows.
        shadow: the same block with the scores and labels of the other variant.
        rows: pairs (row of the block, outcome). A row whose outcome the shadow's score excludes adds nothing.
        sign: 1, or -1 where the champion scored in shadow.
    """
    rows = [
        (index, value) for index, value in rows if shadow.is_possible(index, value) and shadow.has_value(index, value)
    ]
    both = zip(
        _additions(served, _worth(served, rows), _MEANS), _additions(shadow, _worth(shadow, rows), _MEANS), strict=True
    )
    return [
        RowAdditions(
            one.bucket,
            [
                (name, key, sign * (other_units - units))
                for (name, key, units), (_, _, other_units) in zip(one.totals, other.totals, strict=True)
            ],
            one.weight,
        )
        for one, other in both
    ]


def _additions(block: BlockEntry, worth: _Rows, sums: Collection[str] = SUMS) -> list[RowAdditions]:
    if not worth.rows:
        return []
    indexes = [index for index, _ in worth.rows]
    labelled = LabelledRows(
        task=block.task,
        outcomes=np.array([value for _, value in worth.rows]),
        scores=block.scores[indexes],
        labels=block.labels[indexes].astype(np.float64) if block.label else None,
        buckets=block.buckets[indexes],
        log_loss_clip=block.log_loss_clip,
        error_limit=block.error_limit,
        known={VALUE.name: np.array(worth.values)} if block.value else {},
    )
    metrics = [metric for metric in declared_metrics(task_named(block.task), block, LABELLED) if metric.sums in sums]
    return row_additions(metrics, labelled, block.weights[indexes].tolist())


def _curve(block: BlockEntry, worth: _Rows) -> list[RowAdditions]:
    """What rows of a binary model add to the curve over thresholds; all of them in one bucket."""
    if block.width or not task_named(block.task).has_classes:
        return []
    weights = block.weights[[index for index, _ in worth.rows]].tolist()
    steps = [curve_steps(block.value, row, value) for row, value in zip(worth.named, worth.values, strict=True)]
    return [
        RowAdditions(0, [(CURVE, index, weight * units) for index, units in row], weight)
        for row, weight in zip(steps, weights, strict=True)
        if row
    ]


_MEANS = frozenset({MEAN})
