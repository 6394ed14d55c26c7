"""The area under the ROC curve: how often a positive row has a higher score than a negative one."""

from contender.contracts.metrics.metric import AREA, Metric
from contender.contracts.tasks import BINARY

AUC = Metric("auc", "AUC", lower_is_better=False, sums=AREA, scored_tasks=(BINARY,))
