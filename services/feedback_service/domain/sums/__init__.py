"""The sums that metrics are computed from, one module per type. A further type is a module and a line in `SUMS`."""

from contender.contracts.metrics import Metric
from contender.contracts.metrics.metric import AREA, AVERAGE_PRECISION, CALIBRATION, MEAN, PERCENTILE
from services.feedback_service.domain.sums.area import AreaUnderCurve
from services.feedback_service.domain.sums.average_precision import AveragePrecision
from services.feedback_service.domain.sums.calibration import CalibrationError
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.metric_sums import DayTotals, MetricSums
from services.feedback_service.domain.sums.percentile import LatencyPercentile

__all__ = ["SUMS", "DayTotals", "MetricSums", "sums_of"]

SUMS: dict[str, type[MetricSums]] = {
    MEAN: ClusteredSums,
    AREA: AreaUnderCurve,
    AVERAGE_PRECISION: AveragePrecision,
    CALIBRATION: CalibrationError,
    PERCENTILE: LatencyPercentile,
}


def sums_of(metric: Metric) -> type[MetricSums]:
    """The type of sums that hold a metric."""
    return SUMS[metric.sums]
