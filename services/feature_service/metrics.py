"""Metrics of the feature service."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("contender_feature_events_total", "Entity events read, by outcome: merged or duplicate", ["outcome"])
LATE = Counter(
    "contender_feature_late_events_total",
    "Events dropped because they came later than the view's declared lateness allows",
    ["view"],
)
INVALID = Counter("contender_feature_invalid_rows_total", "Rows for which an on-demand function failed", ["view"])
PARKED_EVENTS = Counter("contender_feature_parked_events_total", "Events that fit no source and were parked")
NEWEST = Gauge("contender_feature_newest_event_timestamp_seconds", "Time of the newest event merged", ["view"])
OBJECTIVE = Gauge(
    "contender_feature_objective_seconds", "Declared longest lag from an event's record in Kafka to the store", ["view"]
)
ENTITIES = Gauge("contender_feature_entities", "Entities held, as last counted", ["view"])
LAG_SECONDS = Histogram(
    "contender_feature_lag_seconds",
    "Time from an event's record in Kafka to the store",
    ["view"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)
MERGE_SECONDS = Histogram(
    "contender_feature_merge_seconds",
    "Time to merge a batch of frames into the store",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
SETTLE_SECONDS = Histogram(
    "contender_feature_settle_seconds",
    "Time from merging frames until Redis has confirmed them on disk",
    buckets=(0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CONSISTENCY = Gauge(
    "contender_feature_consistency_ratio",
    "Share of compared values whose served value differs from history, in the last check",
    ["feature", "kind"],
)
CONSISTENCY_ERROR = Gauge(
    "contender_feature_consistency_error",
    "Distance of differing served values from history, in the last check",
    ["feature", "of"],
)
CONSISTENCY_CHECKED = Gauge(
    "contender_feature_consistency_checked_at_seconds",
    "Unix time when the last successful check of served values ended",
)
