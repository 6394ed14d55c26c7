"""What the feature service counts."""

from prometheus_client import Counter, Histogram

EVENTS = Counter("contender_feature_events_total", "Entity events read, by what came of them", ["outcome"])
LATE = Counter("contender_feature_late_events_total", "Events whose tile a newer one had replaced")
MERGE_SECONDS = Histogram(
    "contender_feature_merge_seconds",
    "Time to merge a batch of frames into the store",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
SETTLE_SECONDS = Histogram(
    "contender_feature_settle_seconds",
    "Time until merged frames are known to be on disk",
    buckets=(0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
