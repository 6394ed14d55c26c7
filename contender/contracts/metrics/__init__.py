"""The metrics that models are compared by, one module each. A further metric is a module and a line in `METRICS`.

An installation that runs counts a new metric from then on; with another `CONTENDER_FEEDBACK_STATE` it is counted from
the topics' beginning.
"""

from functools import cache
from typing import Annotated

from contender.contracts.metrics.absolute_error import ABSOLUTE_ERROR, WINSORISED_ABSOLUTE_ERROR
from contender.contracts.metrics.accuracy import ACCURACY
from contender.contracts.metrics.auc import AUC
from contender.contracts.metrics.average_precision import AVERAGE_PRECISION
from contender.contracts.metrics.brier import BRIER
from contender.contracts.metrics.calibration_error import CALIBRATION_ERROR
from contender.contracts.metrics.complaint_rate import COMPLAINT_RATE
from contender.contracts.metrics.conversion import CONVERSION
from contender.contracts.metrics.degraded_rate import DEGRADED_RATE
from contender.contracts.metrics.fallback_rate import FALLBACK_RATE
from contender.contracts.metrics.latency import LATENCY
from contender.contracts.metrics.latency_p95 import LATENCY_P95
from contender.contracts.metrics.log_loss import LOG_LOSS
from contender.contracts.metrics.metric import LABELLED, LOG_LOSS_CLIP, MEAN, SERVED, Metric, ServedRows, spelling_of
from contender.contracts.metrics.override_rate import OVERRIDE_RATE
from contender.contracts.metrics.rating import RATING
from contender.contracts.metrics.reward import REWARD
from contender.contracts.metrics.shown_rate import SHOWN_RATE
from contender.contracts.metrics.squared_error import SQUARED_ERROR, WINSORISED_SQUARED_ERROR
from contender.contracts.metrics.value import VALUE
from contender.contracts.tasks import Task
from contender.contracts.values import OUTCOME, FeedbackKind

__all__ = [
    "CALIBRATION_ERROR",
    "LABELLED",
    "LOG_LOSS_CLIP",
    "MEAN",
    "METRICS",
    "OVERRIDE_RATE",
    "SERVED",
    "SHOWN_RATE",
    "VALUE",
    "Metric",
    "MetricName",
    "ServedRows",
    "declared_metrics",
    "metric_about",
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
    RATING,
    REWARD,
    CONVERSION,
    COMPLAINT_RATE,
    SHOWN_RATE,
    OVERRIDE_RATE,
    FALLBACK_RATE,
    DEGRADED_RATE,
    LATENCY,
    LATENCY_P95,
)
"""All of them; the first that a task has is its usual one."""

MetricName = Annotated[str, spelling_of(METRICS)]
"""A metric that may decide, as JSON spells it."""

_BY_NAME = {metric.name: metric for metric in METRICS}
_ABOUT = {metric.feedback: metric for metric in METRICS if metric.feedback not in (None, OUTCOME)}


def metric_named(name: str) -> Metric:
    """The metric of that name.

    Raises:
        KeyError: there is none.
    """
    return _BY_NAME[name]


def metric_about(kind: FeedbackKind) -> Metric:
    """The metric of reports of a kind that is no outcome.

    Raises:
        KeyError: it is one.
    """
    return _ABOUT[kind]


@cache
def metrics_of(task: Task, ledger: str | None = None) -> tuple[Metric, ...]:
    """The metrics that a task has, the usual one first; with a `ledger` those that are read from it."""
    return tuple(metric for metric in METRICS if metric.has(task) and ledger in (None, metric.ledger))


def declared_metrics(task: Task, design: object, ledger: str | None = None) -> tuple[Metric, ...]:
    """Those of `metrics_of` for which a design, or a block of its predictions, declares all needs."""
    return tuple(metric for metric in metrics_of(task, ledger) if metric.is_declared(design))
