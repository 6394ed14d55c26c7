"""The share of rows whose answer used defaults or a fallback."""

from contender.contracts.metrics.metric import Metric

DEGRADED_RATE = Metric("degraded_rate", "degraded rate", feedback=None, served_values=lambda rows: rows.degraded)
