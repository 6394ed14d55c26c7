"""The interface of every type of sums: what a labelled row adds, and the estimates from the totals."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from contender.contracts.metrics import LOG_LOSS_CLIP, Metric
from services.feedback_service.domain.sums.estimates import Comparison, ConfidenceSequence, Estimate, Floats

DayTotals = Mapping[int, Mapping[int, float]]
"""By the number of a day its totals by key, as `MetricSums.day_totals` gives them."""


@dataclass(frozen=True, slots=True, eq=False)
class DayEffect:
    """Challenger minus champion over whole days, and how much each of `days` moves it: `influence`, shape (days,)."""

    value: float
    days: tuple[int, ...]
    influence: Floats


Buckets = NDArray[np.uint8]
"""The bucket of each row's unit, shape (rows,)."""

Additions = tuple[NDArray[Any], Floats]
"""A key (an integer) and a value per row, both of shape (rows,): the value is added to the total at the key."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """Rows of one model whose outcome counts; the arrays have one entry per row.

    `outcomes` and `scores` are as `contender.contracts.metrics.metric.RowValues` has them, `labels` the numbers of the
    classes that were served (None where they were not recorded), `buckets` those of the units. `log_loss_clip` is the
    least probability that counts in the log loss, and `error_limit` the largest error in winsorised metrics. `known`
    has by metric the values that take more than outcomes and scores.
    """

    task: str
    outcomes: Floats
    scores: Floats
    labels: Floats | None
    buckets: Buckets
    log_loss_clip: float = LOG_LOSS_CLIP
    error_limit: float | None = None
    known: Mapping[str, Floats] = field(default_factory=dict)


class MetricSums(ABC):
    """Sums that a metric is computed from; those of different rows merge by `+`.

    What rows add is kept as totals by key, exactly, so that it can be taken back and stored (`ExactSums`). A type of
    sums chooses the keys.
    """

    @classmethod
    @abstractmethod
    def additions(cls, metric: Metric, rows: LabelledRows) -> Additions:
        """What each row with an outcome adds."""

    @classmethod
    def value_additions(cls, buckets: Buckets, values: Floats) -> Additions:
        """What each row adds to a metric that is about other reports, or known with the answer.

        `buckets` are those of the units and `values` the metric's, both of shape (rows,); a value that is not a number
        is none.

        Raises:
            NotImplementedError: these sums take outcomes and scores.
        """
        raise NotImplementedError(f"{cls.__name__} takes outcomes and scores")

    @classmethod
    @abstractmethod
    def read(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> Self:
        """The sums of some rows: their number by the unit's bucket, and the totals by key. What is absent is zero."""

    @abstractmethod
    def __add__(self, other: Self) -> Self:
        """The sums over the rows of both."""

    @property
    @abstractmethod
    def n(self) -> int:
        """All rows."""

    @property
    @abstractmethod
    def estimate(self) -> Estimate:
        """The metric, with a standard error that allows for rows of one unit resembling each other."""

    @classmethod
    @abstractmethod
    def day_totals(cls, rows: Mapping[int, int], totals: Mapping[int, float]) -> dict[int, float]:
        """A day's totals in few numbers, without units, for `day_effect`. Those of two parts add up by key."""

    @classmethod
    @abstractmethod
    def day_effect(cls, epochs: Sequence[tuple[DayTotals, DayTotals]]) -> DayEffect | None:
        """How the days move the effect over whole days.

        Args:
            epochs: champion and challenger, each totals by day.

        Returns:
            None while an arm has no rows.
        """

    @classmethod
    @abstractmethod
    def compare(cls, epochs: Sequence[tuple[Self, Self]]) -> Comparison | None:
        """Champion against challenger over epochs, each a pair (champion, challenger); None while there are too few.

        A unit may return in later epochs and in the other arm.
        """

    @classmethod
    def look(cls, epochs: Sequence[tuple[Self, Self]], alpha: float) -> ConfidenceSequence | None:  # noqa: ARG003
        """The look at an effect whose interval comes from no standard error; None where `compare` gives one."""
        return None

    def own_look(self, alpha: float) -> ConfidenceSequence | None:  # noqa: ARG002
        """The look at one variant's metric where its interval comes from no standard error."""
        return None


def leave_days_out(
    days: tuple[int, ...], epochs: Sequence[Floats], effect: Callable[[Sequence[Floats]], float]
) -> DayEffect | None:
    """The effect over whole days, its influences from leaving out one day at a time.

    Source: the jackknife; Efron and Stein, The jackknife estimate of variance, Annals of Statistics 1981.

    Args:
        days: their numbers.
        epochs: what champion and challenger have of each day, each of shape (2, days, ...).
        effect: the effect of such epochs summed over days, each of shape (2, ...).

    Returns:
        None where there is no effect without one of the days.
    """
    wholes = [epoch.sum(axis=1) for epoch in epochs]
    without = np.array(
        [
            effect([whole - epoch[:, day] for whole, epoch in zip(wholes, epochs, strict=True)])
            for day in range(len(days))
        ]
    )
    if not wholes or not np.isfinite(without).all():
        return None
    return DayEffect(effect(wholes), days, (without.mean() - without) * (len(days) - 1) / len(days))


def dense(sparse: Mapping[int, float], length: int) -> Floats:
    """An array of a mapping from its indexes, shape (length,)."""
    array = np.zeros(length)
    if sparse:
        array[list(sparse)] = list(sparse.values())
    return array
