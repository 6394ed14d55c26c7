"""Settings of the feedback service."""

from typing import Literal

from pydantic import Field

from shared.settings import Settings


class FeedbackSettings(Settings):
    """What the feedback service can be told beyond what every service can."""

    feedback_rows_limit: int = Field(10_000, ge=1, description="Most outcomes in one call of POST /v1/feedback.")
    snapshot_interval_s: float = Field(0.5, gt=0, description="Shortest time between two snapshots of an experiment.")
    snapshot_heartbeat_s: float = Field(
        5.0, gt=0, description="Longest time between two notes of how far a partition is, when nothing changes."
    )
    allowed_lateness_s: float = Field(
        0.0, ge=0, description="How far behind its experiment's newest prediction one may arrive and count as in order."
    )
    feedback_flush_s: float = Field(
        1.0, gt=0, description="Time between two flushes of the worker's tables: what a crash makes it read again."
    )
    feedback_unacknowledged_limit: int = Field(
        10_000, ge=1, description="Records that the worker reads at most between two flushes: they are held in memory."
    )
    feedback_retention_s: float = Field(
        86_400.0,
        ge=0,
        description="How long a prediction's entry is kept besides twice its window; labels after that count as late.",
    )
    feedback_waiting_s: float = Field(
        86_400.0,
        gt=0,
        description="How long feedback waits for its prediction, and the age of an id whose prediction is not awaited.",
    )
    feedback_waiting_limit: int = Field(
        100_000,
        ge=1,
        description="Reports of a partition that wait for their prediction; more are dropped and counted.",
    )
    feedback_state: str = Field(
        "1",
        pattern=r"^[A-Za-z0-9]{1,20}$",
        description="Name of the counts: with another one they are rebuilt from what the topics still hold.",
    )
    table_store: Literal["rocksdb://", "memory://"] = Field(
        "rocksdb://",
        description="Where the worker's tables live: rocksdb:// (on disk), or memory:// (read anew at each start).",
    )
