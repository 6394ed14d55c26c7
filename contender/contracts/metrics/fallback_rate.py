"""The share of rows that another variant answered than the one assigned."""

from contender.contracts.metrics.metric import Metric

FALLBACK_RATE = Metric("fallback_rate", "fallback rate", feedback=None, served_values=lambda rows: rows.fallbacks)
