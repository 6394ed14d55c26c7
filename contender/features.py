"""Define features: `from contender.features import Entity, EventSource, FeatureView, count, mean`."""

from shared.features.aggregations import (
    Aggregation,
    count,
    last,
    max,  # noqa: A004 - as polars and SQL call it
    mean,
    min,  # noqa: A004
    std,
    sum,  # noqa: A004
)
from shared.features.definitions import Entity, EventSource, FeatureService, FeatureView
from shared.features.errors import DefinitionError, FeatureError, TrainingSetError, UnknownFeatureError

__all__ = [
    "Aggregation",
    "DefinitionError",
    "Entity",
    "EventSource",
    "FeatureError",
    "FeatureService",
    "FeatureView",
    "TrainingSetError",
    "UnknownFeatureError",
    "count",
    "last",
    "max",
    "mean",
    "min",
    "std",
    "sum",
]
