"""Training sets from the definitions that also serve: `from contender.training import build_training_set`."""

from contender.extras import needs_extra
from contender.features.catalogue import Catalogue
from contender.features.errors import FeatureError, TrainingSetError, UnknownFeatureError

with needs_extra("notebook", "building training sets"):
    from contender.features.offline import TrainingSet, build_training_set

__all__ = [
    "Catalogue",
    "FeatureError",
    "TrainingSet",
    "TrainingSetError",
    "UnknownFeatureError",
    "build_training_set",
]
