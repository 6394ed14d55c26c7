"""Worst-case bounds of an effect where labels do not arrive alike, over the labels that one arm has more of."""

from collections.abc import Sequence
from math import log, log1p

from contender.contracts.metrics import Metric
from contender.contracts.metrics.accuracy import ACCURACY
from contender.contracts.metrics.brier import BRIER
from contender.contracts.metrics.log_loss import LOG_LOSS
from contender.contracts.tasks import BINARY, Task
from services.feedback_service.domain.merging import Tally
from services.feedback_service.domain.sums.estimates import weights_of
from services.feedback_service.domain.sums.mean import ClusteredSums

Range = tuple[float, float]
"""The lowest and the highest value that a row may have."""


def value_range(metric: Metric, task: Task, log_loss_clip: float) -> Range | None:
    """The values that a row may have in a metric; None where nothing bounds them."""
    if metric == LOG_LOSS:
        return -log1p(-log_loss_clip), -log(log_loss_clip)
    if metric == ACCURACY:
        return 0.0, 1.0
    if metric == BRIER:
        return 0.0, 1.0 if task == BINARY else 2.0
    return None


def worst_case(
    epochs: Sequence[tuple[Tally, Tally]], metric: Metric, values: Range, reach: float
) -> tuple[float, float] | None:
    """The lowest and the highest effect that the missing labels leave open; None while no epoch has labels in both.

    The arm with more labels loses its surplus once from the top of its values and once from the bottom, which leaves
    the rows that would have a label in either arm. Source: Lee, Training, wages, and sample selection, Review of
    Economic Studies 2009. What is trimmed may have any value of the range, since sums do not hold the distribution:
    the bounds are wider than Lee's.

    Args:
        epochs: the matured rows of champion and challenger.
        metric: a mean over labelled rows.
        values: its range.
        reach: half the width of the effect's interval, which widens the bounds at both ends.
    """
    counted: list[tuple[Tally, Tally]] = [
        epoch for epoch in epochs if all(isinstance(_sums(arm, metric), ClusteredSums) for arm in epoch)
    ]
    counted = [epoch for epoch in counted if all(arm.labelled.sum() > 0.0 for arm in epoch)]
    if not counted:
        return None
    weights = weights_of([(champion.labelled.sum(), challenger.labelled.sum()) for champion, challenger in counted])
    lows, highs = zip(*(_bounds(epoch, metric, values) for epoch in counted), strict=True)
    return float(weights @ lows) - reach, float(weights @ highs) + reach


def _sums(arm: Tally, metric: Metric) -> object:
    return arm.metrics.get(metric.name)


def _bounds(epoch: tuple[Tally, Tally], metric: Metric, values: Range) -> Range:
    champion, challenger = (_trimmed(arm, other, metric, values) for arm, other in (epoch, epoch[::-1]))
    return challenger[0] - champion[1], challenger[1] - champion[0]


def _trimmed(arm: Tally, other: Tally, metric: Metric, values: Range) -> Range:
    """The lowest and highest mean of an arm without the labels that it has more of than the other."""
    shares = [float(tally.labelled.sum() / tally.rows.sum()) for tally in (arm, other)]
    kept = min(1.0, shares[1] / shares[0])
    mean = arm.metrics[metric.name].estimate.value
    low, high = ((mean - (1.0 - kept) * removed) / kept for removed in (values[1], values[0]))
    return max(low, values[0]), min(high, values[1])
