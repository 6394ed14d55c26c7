"""Training sets from the definitions that also serve: `from contender.training import build_training_set`."""

from shared.features.offline import build_training_set

__all__ = ["build_training_set"]
