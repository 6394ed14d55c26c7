"""Settings of the router."""

from math import ceil

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
        32_768, ge=1, description="Rows under way before calls are refused: room for four models that hang."
    )
    queue_limit_bytes: int = Field(
        256 * 1024**2, ge=1024, description="Bytes of the rows under way before calls are refused: bounds the memory."
    )
    model_queue_limit: int = Field(
        8_192,
        ge=1,
        description="Rows of one model under way before its calls are refused, so that none takes the room of all: a "
        "quarter of a second's work. A refusal comes before the rows are assigned, and does not depend on the version.",
    )
    version_queue_limit: int = Field(
        4_096,
        ge=1,
        description="Most rows that wait for one challenger. Beyond it the champion answers, which has room for as "
        "many again.",
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
        "a rest: one lost connection is not enough. A call that takes its whole timeout is enough by itself, so that "
        "the next ones need not wait as well.",
    )
    breaker_rest_s: float = Field(
        1.0, gt=0, description="Seconds without calls to a failing version, or for failing features, before one trial."
    )
    assignment_timeout_s: float = Field(
        0.2,
        gt=0,
        description="Longest a call waits for the first assignments of its units: Redis gives them in a millisecond, a "
        "busy machine in some dozens. Units without are answered by the champion, and do not count.",
    )
    assignment_queue_limit: int = Field(
        100_000,
        ge=1,
        description="Most units whose first assignment waits to be written: some minutes of an outage. Further ones "
        "are counted as lost.",
    )
    assignment_memory_limit: int = Field(
        100_000,
        ge=2,
        description="Most units that are remembered as written, so that they are not written again: some 30 MB.",
    )
    assignment_ttl_s: int = Field(
        180 * 86_400,
        ge=86_400,
        description="Seconds that first assignments are kept after the last new unit: half a year is longer than "
        "experiments run. Those of a stopped experiment are deleted.",
    )
    request_ids_kept_s: float = Field(
        86_400.0, gt=0, description="How long a call's answer is kept for calls with the same request_id: a day."
    )
    request_ids_timeout_s: float = Field(
        0.25,
        gt=0,
        description="Longest a call with a request_id waits for Redis before it is answered without being kept; those "
        "that follow do not wait.",
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
    start_wait_s: float = Field(
        2.0,
        ge=0,
        description="Longest that the start waits for the registered versions and the views; then the router serves "
        "from its last copy, and reads on. A service that works answers in less.",
    )
    unready_after_s: float = Field(
        5.0,
        gt=0,
        description="Seconds without an answer from the inference service after which /readyz says so: a restart of "
        "that service takes less.",
    )
    database_timeout_s: float = Field(
        5.0,
        gt=0,
        description="Longest a query to the database of experiments may take, and so the longest a start waits for it: "
        "it takes milliseconds, and goes on from the copy on disk otherwise.",
    )
    control_interval_s: float = Field(
        10.0,
        gt=0,
        description="Seconds between two looks of the worker at canaries and bandits: their steps take an hour or so.",
    )
    results_timeout_s: float = Field(
        10.0, gt=0, description="Longest the worker waits for an experiment's results, of which a look takes a second."
    )
    results_age_limit_s: float = Field(
        60.0,
        gt=0,
        description="Results that are older move no traffic: the feedback worker says every few seconds how far it is.",
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

    @property
    def finish_s(self) -> int:
        """Longest that calls in flight have at the end of the process: their deadline."""
        return ceil(self.deadline_s) + 1
