"""Settings of the feedback service."""

from typing import Literal

from pydantic import Field

from shared.settings import Settings


class FeedbackSettings(Settings):
    """Settings that only the feedback service has."""

    feedback_rows_limit: int = Field(
        10_000, ge=1, description="Most outcomes in one call of POST /v1/feedback; more are refused with 413."
    )
    snapshot_interval_s: float = Field(0.5, gt=0, description="Shortest time between two snapshots of an experiment.")
    snapshot_heartbeat_s: float = Field(
        5.0, gt=0, description="Longest time between two status records of a partition while nothing changes."
    )
    allowed_lateness_s: float = Field(
        0.0,
        ge=0,
        description="How far the clock by which rows mature stays behind, for labels that are sent late.",
    )
    feedback_flush_s: float = Field(
        1.0, gt=0, description="Time between two flushes of the worker's tables; a crash makes it read that much again."
    )
    feedback_unacknowledged_limit: int = Field(
        10_000, ge=1, description="Most records that the worker reads between two flushes; it holds them in memory."
    )
    feedback_retention_s: float = Field(
        86_400.0,
        ge=0,
        description="How long a prediction is kept besides twice its window; labels that come later count as late.",
    )
    feedback_waiting_s: float = Field(
        86_400.0,
        gt=0,
        description="How long feedback waits for its prediction; feedback on an unknown id older than that is expired.",
    )
    feedback_waiting_limit: int = Field(
        100_000,
        ge=1,
        description="Most reports of a partition that wait for their prediction; more are dropped and counted.",
    )
    verdict_interval_s: float = Field(
        2.0,
        gt=0,
        description="Time between two looks for verdicts; each takes a part of the experiments where there are many.",
    )
    vintage_interval_s: float = Field(
        3_600.0,
        gt=0,
        description="Time between two results of a running experiment that are kept for `?as_of=`, beside those of "
        "verdicts; shorter takes more of the database.",
    )
    feedback_state: str = Field(
        "1",
        pattern=r"^[A-Za-z0-9]{1,20}$",
        description="Name of the counts; another name rebuilds them from the records that the topics still hold.",
    )
    table_store: Literal["rocksdb://", "memory://"] = Field(
        "rocksdb://",
        description="Where the worker keeps its tables: rocksdb:// (on disk), or memory:// (read anew at each start).",
    )
