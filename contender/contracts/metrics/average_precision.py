"""Average precision: how many of the rows with the highest scores are positive, averaged over the positive rows."""

from contender.contracts.metrics.auc import AUC
from contender.contracts.metrics.metric import AVERAGE_PRECISION as AVERAGE_PRECISION_SUMS
from contender.contracts.metrics.metric import Metric
from contender.contracts.tasks import BINARY

AVERAGE_PRECISION = Metric(
    "average_precision",
    "average precision",
    lower_is_better=False,
    sums=AVERAGE_PRECISION_SUMS,
    scored_tasks=(BINARY,),
    stored_with=AUC.name,
)
