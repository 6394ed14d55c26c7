"""What an answer earned, in the experiment's own unit: the mean over rows with a reward."""

from contender.contracts.metrics.metric import Metric

REWARD = Metric("reward", "reward", lower_is_better=False, feedback="reward")
