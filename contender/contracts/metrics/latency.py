"""The mean time from a row's arrival to its answer, in milliseconds."""

from contender.contracts.metrics.metric import Metric

LATENCY = Metric("latency", "mean latency", feedback=None, served_values=lambda rows: rows.latency_ms)
