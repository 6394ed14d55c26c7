"""How users rate the answer, in whatever unit they do: the mean over rated rows."""

from contender.contracts.metrics.metric import Metric

RATING = Metric("rating", "rating", lower_is_better=False, feedback="rating")
