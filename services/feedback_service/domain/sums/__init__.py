"""The sums that metrics are computed from, one module per type. A further type is a module and a line in `SUMS`."""

from contender.contracts.metrics import MEAN, SCORE_HISTOGRAM, Metric
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.metric_sums import MetricSums
from services.feedback_service.domain.sums.score_histogram import ScoreHistogram

__all__ = ["SUMS", "MetricSums", "sums_of"]

SUMS: dict[str, type[MetricSums]] = {MEAN: ClusteredSums, SCORE_HISTOGRAM: ScoreHistogram}


def sums_of(metric: Metric) -> type[MetricSums]:
    """The type of sums that hold a metric."""
    return SUMS[metric.sums]
