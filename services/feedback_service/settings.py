"""Settings of the feedback service."""

from pydantic import Field

from shared.settings import Settings


class FeedbackSettings(Settings):
    """What the feedback service can be told beyond what every service can."""

    feedback_rows_limit: int = Field(10_000, ge=1, description="Most outcomes in one call of POST /v1/feedback.")
    snapshot_interval_s: float = Field(0.5, gt=0, description="Shortest time between two snapshots of a partition.")
    snapshot_heartbeat_s: float = Field(5.0, gt=0, description="Longest time between two, when nothing changes.")
    allowed_lateness_s: float = Field(
        0.0, ge=0, description="How far behind its experiment's newest prediction one may arrive and count as in order."
    )
    feedback_unacknowledged_limit: int = Field(
        64, ge=1, description="Frames whose changelog records may be under way before the worker waits for Kafka."
    )
    table_store: str = Field("memory://", description="Where the worker's tables live: memory:// or rocksdb://.")
