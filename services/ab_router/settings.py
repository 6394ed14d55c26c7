"""Settings of the router."""

from pydantic import Field

from contender.contracts import limits
from shared.settings import Settings


class RouterSettings(Settings):
    """Limits and deadlines of predictions and experiments."""

    row_limit: int = Field(limits.ROWS, ge=1, description="Most rows in one batch call.")
    text_limit: int = Field(limits.TEXT_CHARACTERS, ge=1, description="Longest string, in characters.")
    key_limit: int = Field(limits.KEYS, ge=1, description="Most keys in a row's entities or context.")
    senders: int = Field(2, ge=1, le=16, description="Micro-batches in flight per model version: two measured best.")
    batch_limit: int = Field(1_024, ge=1, description="Most rows in one micro-batch.")
    queue_limit: int = Field(
        32_768, ge=1, description="Rows under way before calls are refused: room for eight versions that hang."
    )
    queue_limit_bytes: int = Field(
        256 * 1024**2, ge=1024, description="Bytes of the rows under way before calls are refused: bounds the memory."
    )
    version_queue_limit: int = Field(
        4_096,
        ge=1,
        description="Most rows that wait for one model version, so that none takes the room of all. Beyond it the "
        "champion answers for a challenger, and calls for the champion are refused.",
    )
    shadow_limit: int = Field(
        8_192,
        ge=1,
        description="Most rows that wait to be scored in shadow and recorded; further ones are dropped and counted.",
    )
    shadow_limit_bytes: int = Field(
        64 * 1024**2, ge=1024, description="Most bytes of those rows; further ones are dropped and counted."
    )
    version_limit: int = Field(
        256,
        ge=1,
        description="Most model versions with a queue of their own; the one idle longest makes room. Each holds as "
        "many connections as it has micro-batches in flight.",
    )
    deadline_s: float = Field(10.0, gt=0, description="Longest a prediction may take.")
    challenger_deadline_s: float = Field(
        5.0,
        gt=0,
        description="Longest a challenger may take, its queue included, before the champion answers in its place: "
        "half of the deadline leaves the champion enough time.",
    )
    feature_timeout_s: float = Field(1.5, gt=0, description="Longest a call for features may take.")
    inference_timeout_s: float = Field(
        3.0,
        gt=0,
        description="Longest a call for scores may take: with a call for features it fits a challenger's deadline.",
    )
    breaker_failures: int = Field(
        3,
        ge=1,
        description="Failed calls in a row after which a version, or the service of its features, gets no calls for "
        "a rest: one lost connection is not enough, and three timeouts make callers wait for nine seconds.",
    )
    breaker_rest_s: float = Field(
        1.0, gt=0, description="Seconds without calls to a failing version, or for failing features, before one trial."
    )
    refresh_s: float = Field(
        2.0, gt=0, description="Seconds between two readings of the registered versions, the views and the experiments."
    )
    reread_s: float = Field(
        0.1,
        ge=0,
        description="Least seconds between two readings for unknown models: calls for unknown names share a reading, "
        "so that many such calls cause few readings.",
    )
    unready_after_s: float = Field(
        5.0,
        gt=0,
        description="Seconds without an answer from the inference service after which /readyz says so: a restart of "
        "that service takes less.",
    )
    database_timeout_s: float = Field(
        10.0, gt=0, description="Longest a query to the database of experiments may take."
    )
    traffic_flush_s: float = Field(
        2.0,
        gt=0,
        description="Seconds between two additions of a router's counts of its traffic to Redis: a crash loses no more "
        "of them, and readiness for an experiment is that fresh.",
    )
    traffic_timeout_s: float = Field(
        1.0, gt=0, description="Longest a call to Redis for these counts may take: no prediction waits for it."
    )
    plan_timeout_s: float = Field(
        3.0,
        gt=0,
        description="Longest a plan by the feedback service may take before an experiment's readiness does without "
        "it: a plan takes about a second.",
    )
