"""The share of all rows that led to a conversion."""

from contender.contracts.metrics.metric import Metric

CONVERSION = Metric("conversion", "conversion rate", lower_is_better=False, feedback="conversion", of_all_rows=True)
