"""The expected calibration error: how far probabilities are from the shares of positive rows.

It does not decide: it is too large by an amount that depends on the number of rows, so the smaller arm seems worse.
"""

from contender.contracts.metrics.auc import AUC
from contender.contracts.metrics.metric import CALIBRATION, Metric
from contender.contracts.tasks import BINARY

CALIBRATION_ERROR = Metric(
    "calibration_error",
    "calibration error",
    sums=CALIBRATION,
    scored_tasks=(BINARY,),
    stored_with=AUC.name,
    may_decide=False,
)
