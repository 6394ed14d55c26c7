"""The value of rows by the formula that an experiment declares, such as money won and spent."""

from contender.contracts.metrics.metric import Metric
from contender.contracts.tasks import BINARY, MULTICLASS, REGRESSION

VALUE = Metric("value", "value", lower_is_better=False, scored_tasks=(BINARY, MULTICLASS, REGRESSION), needs="value")
