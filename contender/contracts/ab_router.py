"""The router's calls for predictions."""

from typing import Annotated, Any, Literal

import msgspec

from contender.contracts import limits
from contender.contracts.operation import Operation
from contender.contracts.problems import (
    JOURNAL_FULL,
    OVERLOADED,
    RECORD_TOO_LARGE,
    UNAVAILABLE,
    ProblemDetails,
    ProblemType,
)
from contender.contracts.values import Scalar, Score

UNKNOWN_MODEL = ProblemType("unknown-model", 404, "No model of that name is registered.")
MODEL_UNAVAILABLE = ProblemType("model-unavailable", 503, "The champion can't answer, and no fallback is declared.")
REQUEST_ID_REUSED = ProblemType("request-id-reused", 422, "An earlier call with another body had the same request_id.")
REQUEST_IN_FLIGHT = ProblemType("request-in-flight", 409, "A call with the same request_id is being answered.")

AssignmentReason = Literal[
    "no experiment",
    "split",
    "forced",
    "holdout",
    "not targeted",
    "other namespace",
    "outside coverage",
    "no unit",
    "paused",
    "assignment unreadable",
]
"""Why a row got its variant, or none: `assignment unreadable` where its unit's first assignment can't be looked up."""

NO_EXPERIMENT: AssignmentReason = "no experiment"
"""The reason that answers leave out."""
REPLAYED_HEADER = "Idempotency-Replayed"
DEADLINE_HEADER = "Deadline-Ms"
"""How long the caller waits for its answer, in milliseconds."""

_REQUEST_HEADERS = {
    DEADLINE_HEADER: {
        "type": "integer",
        "minimum": 1,
        "maximum": limits.DEADLINE_MS,
        "description": "How long the caller waits for its answer, in milliseconds.",
    }
}
_ANSWER_HEADERS = {REPLAYED_HEADER: "`true` where an earlier call with the same request_id got this answer."}

_Unit = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.TEXT_CHARACTERS})]
_RequestId = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.REQUEST_ID_CHARACTERS})]
_FEW = msgspec.Meta(extra_json_schema={"maxProperties": limits.KEYS})
_SOME_ROWS = msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": limits.ROWS})


class PredictionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row to score.

    The router assigns `unit`, such as a user, to a variant; where it is missing, the experiment says what happens. The
    windows of features end at `time` (seconds since the Unix epoch, default now): a replay sets it. `context` is
    recorded with the prediction, for targeting and segments. A call with the `request_id` of an earlier one, within a
    day, gets the same answer, and nothing is recorded again; a batch has one for all of its rows.
    """

    unit: _Unit = ""
    entities: Annotated[dict[str, str | int], _FEW] = {}
    inputs: dict[str, Scalar] = {}
    context: Annotated[dict[str, Scalar], _FEW] = {}
    time: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0})] | None = None
    return_inputs: bool = False
    request_id: _RequestId = ""


class PredictionRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows to score in one call; `request_id` is that of the call."""

    rows: Annotated[list[PredictionRow], _SOME_ROWS]
    request_id: _RequestId = ""


class Outputs(msgspec.Struct, frozen=True):
    """The score and the label it stands for.

    The score is the probability of the last class for a binary model, the value for a regression, and a list of class
    probabilities for a multiclass model.
    """

    score: Score
    label: Scalar


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prediction; feedback refers to it by `prediction_id`.

    `degraded` says that defaults stood in for features, or a fallback for the version. `inputs` are the values that
    the version got, for a row with `return_inputs`. Where `explore` is true, the application is asked to act so that
    the label is seen, whatever the answer: the experiment declares which labels are not (`labels_seen_if`).

    `reason` says why the row got its variant, or none. `share` is that of the experiment's units which the variant
    gets now, in steps of the hash, and `probability` the one with which the row's unit was assigned it, in the `epoch`
    in which it was; `revision` is the experiment's. A row that is `excluded` counts in no results. `deduplicated` is
    false where the `request_id` could not be kept: a repeated call may be recorded again.
    """

    prediction_id: str
    model: str
    version: str
    variant: str | None
    experiment: str | None
    outputs: Outputs
    degraded: bool
    inputs: dict[str, Scalar] = {}
    explore: bool = False
    reason: AssignmentReason = NO_EXPERIMENT
    revision: int = 0
    epoch: int = 0
    share: float | None = None
    probability: float | None = None
    excluded: bool = False
    deduplicated: bool = True


class RefusedRow(msgspec.Struct, frozen=True):
    """A row of a batch without a prediction. The row itself is the cause, so the same row is refused again."""

    error: ProblemDetails


class Predictions(msgspec.Struct, frozen=True):
    """The answers to the rows of a batch, in order: each a Prediction or a RefusedRow."""

    predictions: list[
        Annotated[
            msgspec.Raw,
            msgspec.Meta(
                extra_json_schema={
                    "anyOf": [
                        {"$ref": "#/components/schemas/Prediction"},
                        {"$ref": "#/components/schemas/RefusedRow"},
                    ]
                }
            ),
        ]
    ]


_ROW: dict[str, Any] = {"unit": "u-17", "entities": {"customer": "17"}, "inputs": {"plan": "pro"}}
_PREDICTION: dict[str, Any] = {
    "prediction_id": "p1-00",
    "model": "churn",
    "version": "0c91",
    "variant": "challenger",
    "experiment": "churn-2",
    "outputs": {"score": 0.31, "label": 0},
    "degraded": False,
}
_PREDICTION_PROBLEMS = (
    UNKNOWN_MODEL,
    RECORD_TOO_LARGE,
    REQUEST_ID_REUSED,
    REQUEST_IN_FLIGHT,
    MODEL_UNAVAILABLE,
    OVERLOADED,
    JOURNAL_FULL,
    UNAVAILABLE,
)

PREDICT = Operation(
    "predict",
    "POST",
    "/v1/models/{model}/predict",
    "Scores a row by the version that its unit is assigned, and records the prediction.",
    Prediction,
    body=PredictionRow,
    problems=_PREDICTION_PROBLEMS,
    request_headers=_REQUEST_HEADERS,
    answer_headers=_ANSWER_HEADERS,
    tag="predictions",
    body_example=_ROW,
    answer_example=_PREDICTION,
)
PREDICT_BATCH = Operation(
    "predict_batch",
    "POST",
    "/v1/models/{model}/predict/batch",
    "Scores several rows; a refused row has `error`, a problem, in place of its prediction.",
    Predictions,
    body=PredictionRows,
    problems=_PREDICTION_PROBLEMS,
    request_headers=_REQUEST_HEADERS,
    answer_headers=_ANSWER_HEADERS,
    tag="predictions",
    body_example={"rows": [_ROW]},
    answer_example={"predictions": [_PREDICTION]},
    also=(Prediction, RefusedRow),
)
