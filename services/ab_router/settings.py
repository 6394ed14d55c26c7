"""Settings of the router."""

from pydantic import Field

from shared.settings import Settings


class RouterSettings(Settings):
    """Limits and deadlines of predictions."""

    row_limit: int = Field(1_000, ge=1, description="Most rows in one batch call.")
    text_limit: int = Field(1_000, ge=1, description="Longest string, in characters.")
    key_limit: int = Field(50, ge=1, description="Most keys in a row's entities or context.")
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
        description="Rows that wait for one model version. Beyond it the champion answers for a challenger, and the "
        "champion's calls are refused: one version must not take the room of all.",
    )
    version_limit: int = Field(
        256,
        ge=1,
        description="Model versions with a queue of their own; the longest idle one makes room. Each holds as many "
        "connections as it has micro-batches in flight.",
    )
    deadline_s: float = Field(10.0, gt=0, description="Longest a prediction may take.")
    challenger_deadline_s: float = Field(
        5.0,
        gt=0,
        description="Longest a challenger may take, its queue included, before the champion answers in its place: "
        "half of the deadline leaves the champion its time.",
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
        description="Calls in a row that a version, or the service of its features, fails before it is left alone: a "
        "single lost connection is no reason, and three timeouts keep callers waiting for nine seconds.",
    )
    breaker_rest_s: float = Field(
        1.0, gt=0, description="Seconds that a failing version, or failing features, are left alone before a trial."
    )
    refresh_s: float = Field(2.0, gt=0, description="How often the registered versions are read again.")
    reread_s: float = Field(
        0.1,
        ge=0,
        description="Least seconds between two readings for models that are not known yet: calls for unknown names "
        "share them, so that a flood of such calls is no flood of readings.",
    )
    unready_after_s: float = Field(
        5.0,
        gt=0,
        description="Seconds without an answer from the inference service after which /readyz says so: a restart of "
        "that service takes less.",
    )
    database_timeout_s: float = Field(
        10.0, gt=0, description="Longest a question to the database of experiments may take."
    )
