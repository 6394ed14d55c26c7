"""The events on the topics: dumb data, columnar where there are many rows, additive only.

Times are seconds since the Unix epoch. A frame is one Kafka record; its id is the header `ce_id`.
"""

from collections.abc import Sequence

import msgspec

from contender.contracts.feature_service import EntityEvent as EntityEvent  # noqa: PLC0414 - an event as those here
from contender.contracts.metrics import LOG_LOSS_CLIP
from contender.contracts.tasks import TaskName
from contender.contracts.values import ClockName, Missing, Outcome, Scalar, Score

FRAME_ID_CHARACTERS = 100
"""The longest frame id that is read. Ours have 26; a longer one would make the keys of its frame in stores grow."""


class PredictionBlock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Predictions of one model version for one variant; every list has one entry per row.

    The block says all that the join needs to judge an outcome, so that a reader needs no other topic.
    `variant` is what the unit was assigned (intention to treat), `served_variant` what answered: None when the
    experiment's fallback value did.
    `score` is the probability of the last class for a binary model, the value for a regression, and one
    list of class probabilities per row for a multiclass model. `label` is what the model itself predicts, one of
    `classes`, or the value for a regression; where a router recorded none, the likelier class counts.
    """

    model: str
    version: str
    task: TaskName
    classes: list[Scalar] = []
    experiment: str | None = None
    revision: int = 0
    epoch: int = 0
    window_s: float = 0.0
    missing: Missing = "excluded"
    early_s: float = 2.0
    clock: ClockName = "event"
    time_zone: str = "UTC"
    log_loss_clip: float = LOG_LOSS_CLIP
    label_range: tuple[float, float] | None = None
    variant: str | None = None
    served_variant: str | None = None
    assignment_probability: float = 1.0
    unit: list[str]
    time: list[float]
    score: Sequence[Score]
    label: list[Scalar] = []
    inputs: dict[str, list[Scalar]] = {}
    context: dict[str, list[Scalar]] = {}
    statuses: dict[str, list[str]] = {}
    degraded: list[bool] = []
    latency_ms: list[float] = []

    def __len__(self) -> int:
        return len(self.unit)


class UnansweredBlock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rows that were assigned a variant and got no prediction; every list has one entry per row.

    `reason` is `refused` where the version refuses the row itself, else `failed`: nobody could answer at that moment.
    """

    model: str
    experiment: str
    revision: int = 0
    epoch: int
    window_s: float
    missing: Missing = "excluded"
    clock: ClockName = "event"
    time_zone: str = "UTC"
    task: TaskName
    variant: str
    assignment_probability: float = 1.0
    unit: list[str]
    time: list[float]
    reason: list[str]

    def __len__(self) -> int:
        return len(self.unit)


class PredictionFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One micro-batch of the router. Row numbers run on through the blocks; unanswered rows have none."""

    blocks: list[PredictionBlock]
    unanswered: list[UnansweredBlock] = []


class FeedbackGiven(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome that someone reported for one prediction."""

    frame_id: str
    row: int
    outcome: Outcome
    given_at: float
    source: str = ""


class FeedbackFrame(msgspec.Struct, frozen=True):
    """Feedback for predictions of one shard."""

    events: list[FeedbackGiven]


class EntityEventFrame(msgspec.Struct, frozen=True):
    """Entity events that arrived together."""

    events: list[EntityEvent]
