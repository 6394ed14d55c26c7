"""Worst-case bounds of an effect where labels do not arrive alike, over the labels that one arm has more of."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from contender.contracts.limits import CLIPS
from contender.contracts.metrics import Metric
from contender.contracts.metrics.auc import AUC
from contender.contracts.tasks import Task
from services.feedback_service.domain.merging import Tally
from services.feedback_service.domain.sums.estimates import Floats, weights_of
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.score_histogram import BINS, LOGIT_LIMIT, ScoreHistogram

LARGEST_SURPLUS = 0.05
"""The share of its labels that an arm may have more than the other. Beyond, something is wrong with the labels
themselves, and who has one in both arms is anybody's guess."""

Range = tuple[float, float]
"""The lowest and the highest value that a row may have."""


def worst_case(
    epochs: Sequence[tuple[Tally, Tally]], metric: Metric, task: Task, values: Range, reach: float
) -> Range | None:
    """The lowest and the highest effect that the missing labels leave open.

    None while no epoch has labels in both arms, and where one has more than LARGEST_SURPLUS more than the other.

    The arm with more labels loses its surplus once from the top of its values and once from the bottom, which leaves
    the rows that would have a label in either arm. Source: Lee, Training, wages, and sample selection, Review of
    Economic Studies 2009. The values of a binary model follow from outcome and score, which its score histogram counts;
    those of others may be anywhere in the range, and the bounds are wider for it.

    Args:
        epochs: the matured rows of champion and challenger.
        metric: a mean over labelled rows.
        task: that of the model.
        values: the range of the metric.
        reach: half the width of the effect's interval, which widens the bounds at both ends.
    """
    counted = [epoch for epoch in epochs if all(_has_labels(arm, metric) for arm in epoch)]
    if not counted or min(_kept(*arms) for epoch in counted for arms in (epoch, epoch[::-1])) < 1.0 - LARGEST_SURPLUS:
        return None
    weights = weights_of([(champion.labelled.sum(), challenger.labelled.sum()) for champion, challenger in counted])
    bounds = [_bounds(epoch, metric, task, values) for epoch in counted]
    low, high = weights @ np.array(bounds)
    return float(low) - reach, float(high) + reach


def _has_labels(arm: Tally, metric: Metric) -> bool:
    return isinstance(arm.metrics.get(metric.name), ClusteredSums) and float(arm.labelled.sum()) > 0.0


def _bounds(epoch: tuple[Tally, Tally], metric: Metric, task: Task, values: Range) -> Range:
    champion, challenger = (_trimmed(arm, other, metric, task, values) for arm, other in (epoch, epoch[::-1]))
    return challenger[0] - champion[1], challenger[1] - champion[0]


def _trimmed(arm: Tally, other: Tally, metric: Metric, task: Task, values: Range) -> Range:
    """The lowest and highest mean of an arm without the labels that it has more of than the other."""
    kept = _kept(arm, other)
    n, mean = float(arm.labelled.sum()), arm.metrics[metric.name].estimate.value
    surplus = (1.0 - kept) * n
    bottom, top = _extremes(arm, metric, task, values, surplus)
    low, high = ((mean * n - removed) / (kept * n) for removed in (top, bottom))
    return max(low, values[0]), min(high, values[1])


def _kept(arm: Tally, other: Tally) -> float:
    """The share of an arm's labels that are left without its surplus."""
    shares = [float(tally.labelled.sum() / tally.rows.sum()) for tally in (arm, other)]
    return min(1.0, shares[1] / shares[0])


def _extremes(arm: Tally, metric: Metric, task: Task, values: Range, surplus: float) -> Range:
    """The least that the `surplus` lowest values can come to, and the most that the highest can."""
    histogram = arm.metrics.get(AUC.name)
    if not isinstance(histogram, ScoreHistogram) or metric.label_values is not None:
        return surplus * values[0], surplus * values[1]
    edges, counts = _binned(histogram)
    at_edges = [
        np.clip(metric.row_values(task.name, np.full(len(edges), outcome), edges, CLIPS[0]), *values)
        for outcome in (0.0, 1.0)
    ]
    least, most = (
        np.concatenate([pick(of_class[:-1], of_class[1:]) for of_class in at_edges])
        for pick in (np.minimum, np.maximum)
    )
    return _sum_of_lowest(least, counts, surplus), -_sum_of_lowest(-most, counts, surplus)


def _binned(histogram: ScoreHistogram) -> tuple[Floats, Floats]:
    """The scores at the edges of the bins, and the rows by bin: those of the negatives, then of the positives."""
    edges: Floats = expit(np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, BINS + 1))
    edges[[0, -1]] = 0.0, 1.0  # the outermost bins hold all that lies beyond
    return edges, histogram.counts.sum(axis=0).ravel()


def _sum_of_lowest(values: Floats, counts: Floats, rows: float) -> float:
    """The sum of the lowest values of so many rows."""
    order = np.argsort(values)
    taken = np.diff(np.minimum(np.cumsum(counts[order]), rows), prepend=0.0)
    return float(taken @ values[order])
