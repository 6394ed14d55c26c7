"""The events on the topics: dumb data, columnar where there are many rows, additive only.

Times are seconds since the Unix epoch. A frame is one Kafka record; its id is the header `ce_id`.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

Scalar = bool | int | float | str | None
Outcome = bool | int | float | str
Task = Literal["binary", "multiclass", "regression"]
Missing = Literal["excluded", "negative"]
Dtype = Literal["float", "integer", "string", "boolean"]

FRAME_ID_CHARACTERS = 100
"""The longest frame id that is read. Ours have 26; the keys of what is kept of a frame must not grow with others."""


class PredictionBlock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Predictions of one model version for one variant; every list has one entry per row.

    The block says all that the join needs to judge an outcome, so that a reader needs no other topic.
    `variant` is what the unit was assigned (intention to treat), `served_variant` what answered: none of them when
    the experiment's fallback value did.
    `score` is the probability of the last class for a binary model, the value for a regression, and one
    list of class probabilities per row for a multiclass model. `label` is what the model itself predicts, one of
    `classes`, or the value for a regression; blocks of a router that recorded none judge by the likelier class.
    """

    model: str
    version: str
    task: Task
    classes: list[Scalar] = []
    experiment: str | None = None
    revision: int = 0
    epoch: int = 0
    window_s: float = 0.0
    missing: Missing = "excluded"
    variant: str | None = None
    served_variant: str | None = None
    assignment_probability: float = 1.0
    unit: list[str]
    time: list[float]
    score: Sequence[float | list[float]]
    label: list[Scalar] = []
    inputs: dict[str, list[Scalar]] = {}
    context: dict[str, list[Scalar]] = {}
    statuses: dict[str, list[str]] = {}
    degraded: list[bool] = []
    latency_ms: list[float] = []

    def __len__(self) -> int:
        return len(self.unit)


class PredictionFrame(msgspec.Struct, frozen=True):
    """One micro-batch of the router. Row numbers run on through the blocks."""

    blocks: list[PredictionBlock]


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


class EntityEvent(msgspec.Struct, frozen=True):
    """Something that happened to entities: a row of an event source, `values` by the source's schema."""

    source: str
    time: float
    values: dict[str, Scalar]


class EntityEventFrame(msgspec.Struct, frozen=True):
    """Entity events that arrived together."""

    events: list[EntityEvent]


class VariantAllocation(msgspec.Struct, frozen=True):
    """One variant of an experiment: the version that answers, and its share of the units."""

    name: str
    version: str
    weight: float


class ExperimentRevision(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment as it stands after a change; the newest revision of a name is the one that holds."""

    name: str
    model: str
    revision: int
    epoch: int
    status: Literal["draft", "running", "stopped"]
    seed: str
    champion: str
    variants: list[VariantAllocation]
    metric: str
    window_s: float
    missing: Missing = "excluded"
    alpha: float = 0.05
    tuning_n: int = 5000
    coverage: float = 1.0
    fallback_value: float | None = None
    changed_at: float
    started_at: float | None = None
    stopped_at: float | None = None


class InputColumn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named input of a model: its type, where its value comes from, what stands in.

    `source` is `request` or the `view:feature` that serves it. `default` stands in for every missing or null value,
    whatever the type. Without one a null is NaN in a float column and `null_text` in a text column, where the column
    is not required; elsewhere it is refused. `tensor` is the ONNX file's input for it: empty means the column's name.
    """

    name: str
    dtype: Dtype
    source: str = "request"
    default: Scalar = None
    required: bool = True
    tensor: str = ""
    null_text: str = ""


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable model version, named by the sha256 of its ONNX file, with what a caller must know to use it.

    `score_output` and `label_output` name outputs of the file. Empty means the first tensor of floats, and no label:
    the likeliest class is the label then. A label tensor holds the classes themselves; booleans are 0 and 1.
    """

    model: str
    version: str
    task: Task
    classes: list[Scalar] = []
    inputs: list[InputColumn]
    entities: dict[str, list[str]] = {}
    registered_at: float
    champion: bool = False
    description: str = ""
    score_output: str = ""
    label_output: str = ""
    manifest: dict[str, object] = {}


class RowFault(msgspec.Struct, frozen=True):
    """Why one row of a question has no answer: `row` counts from 0, `field` is such as `inputs.plan`.

    `status` is 422 where the row itself is the cause, 503 where the same row may be answered later.
    """

    row: int
    status: int
    field: str
    message: str


class Parked(msgspec.Struct, frozen=True):
    """Where unreadable bytes came from and why they were set aside."""

    topic: str
    partition: int
    offset: int
    reason: str
