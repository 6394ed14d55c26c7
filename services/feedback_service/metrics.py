"""The worker's metrics."""

from prometheus_client import Counter, Gauge

APPLIED = Counter("contender_feedback_frames_total", "Frames that the join has applied, by topic", ["topic"])
OWNED = Gauge("contender_feedback_partitions", "Partitions whose snapshots this worker publishes")
SNAPSHOTS = Counter("contender_feedback_snapshots_total", "Snapshots of experiments written to Redis")
SNAPSHOT_BYTES = Counter("contender_feedback_snapshot_bytes_total", "Bytes of snapshots written to Redis")
WAITING = Gauge("contender_feedback_waiting_reports", "Reports that wait for their prediction")
UNMATCHED = Counter(
    "contender_feedback_unmatched_total",
    "Reports given up without a prediction: too many were waiting (dropped), or this one for too long (expired)",
    ["fate"],
)
DELETED = Counter("contender_feedback_deleted_entries_total", "Table entries deleted after their retention")
LOOKS = Counter("contender_feedback_looks_total", "Looks at experiments for verdicts")
VERDICTS_FOUND = Counter(
    "contender_feedback_verdicts_total",
    "Verdicts (decided), and later findings that put one in question (questioned, contradicted)",
    ["kind"],
)
