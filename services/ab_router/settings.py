"""Settings of the router."""

from pydantic import Field

from shared.settings import Settings


class RouterSettings(Settings):
    """Limits and deadlines of predictions."""

    row_limit: int = Field(1_000, ge=1, description="Most rows in one batch call.")
    text_limit: int = Field(1_000, ge=1, description="Longest string, in characters.")
    key_limit: int = Field(50, ge=1, description="Most keys in a row's entities or context.")
    senders: int = Field(2, ge=1, le=16, description="Micro-batches in flight: two measured best.")
    batch_limit: int = Field(1_024, ge=1, description="Most rows in one micro-batch.")
    queue_limit: int = Field(8_192, ge=1, description="Rows that wait before calls are refused.")
    deadline_s: float = Field(10.0, gt=0, description="Longest a prediction may take.")
    feature_timeout_s: float = Field(1.5, gt=0, description="Longest a call for features may take.")
    inference_timeout_s: float = Field(
        3.0,
        gt=0,
        description="Longest a call for scores may take: twice this and twice a call for features fit the deadline, "
        "so that a challenger that hangs still leaves the champion its time.",
    )
    refresh_s: float = Field(2.0, gt=0, description="How often the registered versions are read again.")
