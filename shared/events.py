"""The events on the topics: dumb data, columnar where there are many rows, additive only.

Times are seconds since the Unix epoch. A frame is one Kafka record; its id is the header `ce_id`.
"""

from collections.abc import Sequence

import msgspec

from contender.contracts.feature_service import EntityEvent as EntityEvent  # noqa: PLC0414 - an event as those here
from contender.contracts.limits import UNDECLARED_EARLY_S
from contender.contracts.metrics import LOG_LOSS_CLIP
from contender.contracts.tasks import TaskName
from contender.contracts.values import ClockName, FeedbackKind, Missing, Outcome, Scalar, Score

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
    `label_probability` is the probability with which the row's label is seen, given its answer: empty where it is 1
    for all, 0 for a row whose label does not count. `metric` decides the experiment, and `segments` are the keys of
    `context` that its effect is shown for. `value` is the formula of the metric of that name.
    Rows that got a variant of an experiment but don't count in it have `excluded_from`, its name, in place of
    `experiment`, and why in `exclusion`. `epoch` is the one in which the rows' units were assigned. `request_id` is the
    caller's, empty for a row without one.
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
    early_s: float = UNDECLARED_EARLY_S
    clock: ClockName = "event"
    time_zone: str = "UTC"
    log_loss_clip: float = LOG_LOSS_CLIP
    label_range: tuple[float, float] | None = None
    error_limit: float | None = None
    metric: str = ""
    segments: list[str] = []
    value: str = ""
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
    label_probability: list[float] = []
    excluded_from: str = ""
    exclusion: str = ""
    request_id: list[str] = []

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


class ShadowBlock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What another variant would have answered to rows of an earlier frame in the same partition, in shadow.

    One of the variant that answered and `variant`, which did in shadow, is the `champion`. `row` has the numbers of the
    rows in the frame `frame_id`; the other lists have one entry for each, as in a PredictionBlock.
    """

    frame_id: str
    experiment: str
    epoch: int
    champion: str
    variant: str
    version: str
    row: list[int]
    score: Sequence[Score]
    label: list[Scalar] = []

    def __len__(self) -> int:
        return len(self.row)


class PredictionFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One micro-batch of the router. Row numbers run on through the blocks; unanswered rows have none.

    Shadow scores come in a frame of their own, after the answers have gone.
    """

    blocks: list[PredictionBlock]
    unanswered: list[UnansweredBlock] = []
    shadows: list[ShadowBlock] = []


class _UnreadFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    blocks: list[msgspec.Raw]
    unanswered: list[msgspec.Raw] = []
    shadows: list[msgspec.Raw] = []


def joined_frames(values: Sequence[bytes]) -> bytes:
    """The frame of some parts, each a PredictionFrame in JSON: the numbers of its rows run on through them."""
    if len(values) == 1:
        return values[0]
    parts = [msgspec.json.decode(value, type=_UnreadFrame) for value in values]
    lists = ([entry for part in parts for entry in getattr(part, name)] for name in _UnreadFrame.__struct_fields__)
    return msgspec.json.encode(_UnreadFrame(*lists))


class FeedbackGiven(msgspec.Struct, frozen=True, omit_defaults=True):
    """What someone reported on one prediction; `outcome` is the value, whatever its `kind`."""

    frame_id: str
    row: int
    outcome: Outcome
    given_at: float
    source: str = ""
    kind: FeedbackKind = "outcome"


class FeedbackFrame(msgspec.Struct, frozen=True):
    """Feedback for predictions of one shard."""

    events: list[FeedbackGiven]


class EntityEventFrame(msgspec.Struct, frozen=True):
    """Entity events that arrived together."""

    events: list[EntityEvent]
