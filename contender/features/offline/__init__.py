"""Training sets: the value of every feature at every row's own time, from a history of events.

A feature at a row is an aggregate of a slice of events. Events are sorted by entity, time and value, so that those in a
window lie side by side (`spans`); what a slice holds is put together from blocks of 1, 2, 4 … events (`folding`), so
that a window costs as much as the logarithm of its events and no sum is ever the difference of two larger ones.
"""

from contender.features.offline.tables import Table
from contender.features.offline.training_set import FeatureSelection, TrainingSet, build_training_set

__all__ = ["FeatureSelection", "Table", "TrainingSet", "build_training_set"]
