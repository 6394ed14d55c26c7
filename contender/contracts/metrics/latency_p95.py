"""The time in milliseconds within which 95 % of the rows are answered."""

from contender.contracts.metrics.metric import PERCENTILE, Metric

LATENCY_P95 = Metric(
    "latency_p95",
    "95th percentile of latency",
    sums=PERCENTILE,
    feedback=None,
    served_values=lambda rows: rows.latency_ms,
)
