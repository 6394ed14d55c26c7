"""The metrics that models are compared by, one module each. A further metric is a module and a line in `METRICS`.

An installation that runs counts a new metric from then on; with another `CONTENDER_FEEDBACK_STATE` it is counted from
the topics' beginning.
"""

from typing import Annotated

from contender.contracts.metrics.absolute_error import ABSOLUTE_ERROR, WINSORISED_ABSOLUTE_ERROR
from contender.contracts.metrics.accuracy import ACCURACY
from contender.contracts.metrics.auc import AUC
from contender.contracts.metrics.average_precision import AVERAGE_PRECISION
from contender.contracts.metrics.brier import BRIER
from contender.contracts.metrics.calibration_error import CALIBRATION_ERROR
from contender.contracts.metrics.log_loss import LOG_LOSS
from contender.contracts.metrics.metric import LABELLED, LOG_LOSS_CLIP, SERVED, Metric, spelling_of
from contender.contracts.metrics.squared_error import SQUARED_ERROR, WINSORISED_SQUARED_ERROR
from contender.contracts.metrics.value import VALUE
from contender.contracts.tasks import Task

__all__ = [
    "LABELLED",
    "LOG_LOSS_CLIP",
    "METRICS",
    "SERVED",
    "VALUE",
    "Metric",
    "MetricName",
    "metric_named",
    "metrics_of",
]

METRICS: tuple[Metric, ...] = (
    LOG_LOSS,
    BRIER,
    ACCURACY,
    AUC,
    AVERAGE_PRECISION,
    CALIBRATION_ERROR,
    ABSOLUTE_ERROR,
    SQUARED_ERROR,
    WINSORISED_ABSOLUTE_ERROR,
    WINSORISED_SQUARED_ERROR,
    VALUE,
)
"""All of them; the first that a task has is its usual one."""

MetricName = Annotated[str, spelling_of(METRICS)]
"""A metric that may decide, as JSON spells it."""

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric_named(name: str) -> Metric:
    """The metric of that name.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]


def metrics_of(task: Task, design: object = None) -> tuple[Metric, ...]:
    """The metrics that a task has, the usual one first; with a design, those alone for which it declares all needs."""
    known = (metric for metric in METRICS if metric.has(task))
    return tuple(metric for metric in known if design is None or metric.is_declared(design))
