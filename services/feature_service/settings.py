"""Settings of the feature service."""

from pydantic import Field

from shared.settings import Settings


class FeatureSettings(Settings):
    """Settings of the feature service, on top of those that all services have."""

    features: str = Field("examples.flights.features", description="Python module that holds the feature definitions.")
    future_s: float = Field(
        300.0,
        ge=0,
        description="How far ahead of this clock an event's time may be, since clocks differ; later ones are refused.",
    )
    event_limit: int = Field(10_000, ge=1, description="Most events of one call; more are refused.")
    row_limit: int = Field(10_000, ge=1, description="Most rows of one question for online features; more are refused.")
    feature_limit: int = Field(
        1_000,
        ge=1,
        description="Most different features of one question, since models take some dozens; more are refused.",
    )
    read_limit_bytes: int = Field(
        128 * 1024**2,
        ge=1024,
        description="Most bytes of tiles that one question for online features may read; larger ones are refused.",
    )
    seen_ttl_s: int = Field(86_400, ge=60, description="How long a frame's id is remembered, to drop duplicates.")
    redis_replicas: int = Field(
        0, ge=0, description="Replicas of Redis that must have a write on disk, too, before its offset is committed."
    )
    store_timeout_s: float = Field(2.0, gt=0, description="Deadline of one call to Redis by the web process.")
    store_retry_budget_s: float = Field(
        60.0,
        gt=0,
        validation_alias="CONTENDER_STORE_PATIENCE_S",
        description="Seconds a worker tries to reach Redis; then it exits with status 1 and is started again.",
    )
    batch_frames: int = Field(128, ge=1, description="Most frames that a worker merges at a time.")
    unacknowledged_frames: int = Field(4096, ge=1, description="Most frames merged and not yet confirmed on disk.")
    refresh_s: float = Field(0.5, gt=0, description="How often processes look for changed definitions.")
    entities_every_s: float = Field(
        300.0, ge=0, description="How often the entities held are counted, for the status and /metrics; 0: never."
    )
    write_lag_s: float = Field(
        1.0,
        ge=0,
        description="Declared time from an event until it is served; checks of served values leave out younger ones.",
    )
    consistency_every_s: float = Field(
        0.0, ge=0, description="How often served values are checked against history; 0: only when asked."
    )
    consistency_sample: float = Field(0.1, gt=0, le=1, description="Share of the entities that such a check compares.")
