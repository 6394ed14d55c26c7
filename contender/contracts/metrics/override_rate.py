"""The share of people's decisions that are another label than the one that was answered."""

from contender.contracts.metrics.metric import Metric

OVERRIDE_RATE = Metric(
    "override_rate", "override rate", feedback="decided", against_answer=True, report_word="decision"
)
