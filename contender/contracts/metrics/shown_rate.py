"""The share of all rows whose answer was put before its user: a prediction alone is an evaluation, not an exposure."""

from contender.contracts.metrics.metric import Metric

SHOWN_RATE = Metric(
    "shown_rate", "shown rate", lower_is_better=False, feedback="shown", of_all_rows=True, report_word="exposure"
)
