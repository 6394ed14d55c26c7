"""Define features: `from contender.features import Entity, EventSource, FeatureView, count, mean`.

Training sets and online values are computed from the same definitions by one formula. A window of length W with hop h
has, at time t, the events in [floor(t/h)*h - W + h, t): tiles of width h, merged. An event at exactly t is unseen, so
when t lies on a tile's boundary the tile that begins there contributes nothing.
"""

from contender.features import kinds
from contender.features.catalogue import Catalogue, Feature, KeptVersion, Schema, View
from contender.features.conditions import Condition, column, condition_document
from contender.features.definitions import ColumnType, Entity, EventSource, FeatureService, FeatureView
from contender.features.documents import source_document, view_document, view_of
from contender.features.durations import format_duration, seconds
from contender.features.errors import DefinitionError, FeatureError, TrainingSetError, UnknownFeatureError
from contender.features.kinds import *  # noqa: F403 - every kind, those to come included
from contender.features.kinds.kind import ALL_TIME, Aggregation, sharing
from contender.features.on_demand import OnDemandView, on_demand

__all__ = [
    "ALL_TIME",
    "Aggregation",
    "Catalogue",
    "ColumnType",
    "Condition",
    "DefinitionError",
    "Entity",
    "EventSource",
    "Feature",
    "FeatureError",
    "FeatureService",
    "FeatureView",
    "KeptVersion",
    "OnDemandView",
    "Schema",
    "TrainingSetError",
    "UnknownFeatureError",
    "View",
    "column",
    "condition_document",
    "format_duration",
    "on_demand",
    "seconds",
    "sharing",
    "source_document",
    "view_document",
    "view_of",
]
__all__ += kinds.__all__
