"""What a challenger is compared by: rows that were assigned to either variant, or the rows that both have scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import hypot

from contender.contracts.metrics import Metric
from services.feedback_service.domain.confidence import confidence_sequence
from services.feedback_service.domain.merging import Arm
from services.feedback_service.domain.sequences import LookAt
from services.feedback_service.domain.split import BLOCKING_P, BLOCKING_TUNING_N
from services.feedback_service.domain.sums import DayTotals, MetricSums, sums_of
from services.feedback_service.domain.sums.estimates import Estimate
from services.feedback_service.domain.sums.mean import ClusteredSums, mean_of_differences, zeros_by_day


@dataclass(frozen=True, slots=True)
class Compared:
    """The matured rows of one challenger's comparison, by epoch.

    `arms` are champion and challenger. `shared` are the rows that both have scored, whose sums are differences; there
    are some where the outcome does not depend on the answer, and the means over labelled rows are taken from them.
    `deciding` is the metric of the verdict. In a `shadow` experiment the champion answers all rows: there are shared
    ones alone.
    """

    deciding: Metric
    arms: Sequence[tuple[Arm, Arm]]
    shared: Sequence[Arm] = ()
    shadow: bool = False

    def is_paired(self, metric: Metric) -> bool:
        """Whether the effect is the mean difference of two scores of the same rows."""
        return bool(self.shared or self.shadow) and metric.has_pairs

    def effect(self, metric: Metric) -> Estimate | None:
        """Challenger minus champion; None while there are too few rows."""
        return self.paired(metric) if self.is_paired(metric) else self.randomised(metric)

    def paired(self, metric: Metric) -> Estimate | None:
        """The mean difference on the same rows."""
        sums = [arm.matured.metrics.get(metric.name) for arm in self.shared]
        return mean_of_differences([one for one in sums if isinstance(one, ClusteredSums)])

    def randomised(self, metric: Metric) -> Estimate | None:
        """The difference between rows that were assigned to either variant."""
        comparison = sums_of(metric).compare(self._epochs(metric))
        return None if comparison is None else comparison.effect

    def look_at(self, metric: Metric) -> LookAt:
        """The looks at a metric whose effect has no standard error; none where the estimate says all."""
        return partial(sums_of(metric).look, [] if self.is_paired(metric) else self._epochs(metric))

    def _epochs(self, metric: Metric) -> list[tuple[MetricSums, MetricSums]]:
        epochs: list[tuple[MetricSums, MetricSums]] = []
        for pair in self.arms:
            champion, challenger = (arm.matured.metrics.get(metric.name) for arm in pair)
            if champion is not None and challenger is not None:
                epochs.append((champion, challenger))
        return epochs

    def days(self, metric: Metric) -> list[tuple[DayTotals, DayTotals]]:
        """The totals of champion and challenger by day; the differences on the same rows are against zero."""
        if self.is_paired(metric):
            return [(zeros_by_day(arm.days_of(metric)), arm.days_of(metric)) for arm in self.shared]
        return [(champion.days_of(metric), challenger.days_of(metric)) for champion, challenger in self.arms]

    def memory_name(self, metric: Metric) -> str:
        """The name that the looks at a metric are remembered by: those of two estimators are not of one sequence."""
        return f"paired {metric.name}" if self.is_paired(metric) else metric.name

    @property
    def estimators_p(self) -> float | None:
        """The p-value of both estimators of the deciding metric having one expectation, at one look.

        None where there is one of them alone.

        Both rest on the same labels, so that they rise and fall together: the sum of their variances is, if anything,
        too large.
        """
        if not self.is_paired(self.deciding):
            return None
        randomised, paired = self.randomised(self.deciding), self.paired(self.deciding)
        if randomised is None or paired is None or not (randomised.varies and paired.varies):
            return None
        error = hypot(randomised.standard_error, paired.standard_error)
        difference = Estimate(paired.value - randomised.value, error, randomised.n)
        return confidence_sequence(difference, alpha=BLOCKING_P, tuning_n=BLOCKING_TUNING_N).p
