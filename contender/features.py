"""Define features: `from contender.features import Entity, EventSource, FeatureView, count, mean`."""

from shared.features.aggregations import (
    Aggregation,
    count,
    distinct_count,
    first,
    last,
    last_n,
    max,  # noqa: A004 - as polars and SQL call it
    mean,
    min,  # noqa: A004
    quantile,
    ratio,
    std,
    sum,  # noqa: A004
)
from shared.features.conditions import Condition, column
from shared.features.definitions import Entity, EventSource, FeatureService, FeatureView
from shared.features.errors import DefinitionError, FeatureError, TrainingSetError, UnknownFeatureError
from shared.features.on_demand import OnDemandView, on_demand

__all__ = [
    "Aggregation",
    "Condition",
    "DefinitionError",
    "Entity",
    "EventSource",
    "FeatureError",
    "FeatureService",
    "FeatureView",
    "OnDemandView",
    "TrainingSetError",
    "UnknownFeatureError",
    "column",
    "count",
    "distinct_count",
    "first",
    "last",
    "last_n",
    "max",
    "mean",
    "min",
    "on_demand",
    "quantile",
    "ratio",
    "std",
    "sum",
]
