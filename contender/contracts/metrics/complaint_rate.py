"""The share of all rows that somebody complained about."""

from contender.contracts.metrics.metric import Metric

COMPLAINT_RATE = Metric("complaint_rate", "complaint rate", feedback="complaint", of_all_rows=True)
