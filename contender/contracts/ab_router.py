"""The router's calls: predictions and experiments."""

from typing import Annotated, Any, Literal

import msgspec

from contender.contracts.metrics import MetricName
from contender.contracts.operation import Operation
from contender.contracts.problems import (
    JOURNAL_FULL,
    OVERLOADED,
    RECORD_TOO_LARGE,
    UNAVAILABLE,
    ProblemDetails,
    ProblemType,
)
from contender.contracts.values import Missing, Scalar, Score

UNKNOWN_MODEL = ProblemType("unknown-model", 404, "No model of that name is registered.")
UNKNOWN_EXPERIMENT = ProblemType("unknown-experiment", 404, "No experiment has that name.")
EXPERIMENT_EXISTS = ProblemType("experiment-exists", 409, "There is an experiment of that name.")
EXPERIMENT_STATE = ProblemType("experiment-state", 409, "The experiment is not in the state that this needs.")
MODEL_UNAVAILABLE = ProblemType("model-unavailable", 503, "The champion can't answer, and no fallback is declared.")
EXPERIMENTS_UNAVAILABLE = ProblemType("experiments-unavailable", 503, "The database of experiments does not answer.")


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


class NewExperiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An experiment as a caller declares it; `champion` is the name of a variant, by default the first.

    `fallback_value` is the score that is answered when the champion can't: a probability for a binary model, the
    value for a regression.
    """

    name: str
    model: str
    variants: list[VariantAllocation]
    champion: str | None = None
    metric: MetricName = "log_loss"
    window_s: float = 86_400.0
    missing: Missing = "excluded"
    alpha: float = 0.05
    tuning_n: int = 5000
    coverage: float = 1.0
    fallback_value: float | None = None


class ExperimentList(msgspec.Struct, frozen=True):
    """Every experiment, oldest first."""

    experiments: list[ExperimentRevision]


class PredictionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prediction to make.

    `unit` is what is assigned to a variant, such as a user. `time` (seconds since the Unix epoch, default now) is
    when the windows of its features end: a replay gives it. `context` is kept with the prediction, for segments.
    """

    unit: str
    entities: dict[str, str | int] = {}
    inputs: dict[str, Scalar] = {}
    context: dict[str, Scalar] = {}
    time: float | None = None
    return_inputs: bool = False


class PredictionRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Predictions to make in one call."""

    rows: list[PredictionRow]


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
    the version got, for a row with `return_inputs`.
    """

    prediction_id: str
    model: str
    version: str
    variant: str | None
    experiment: str | None
    outputs: Outputs
    degraded: bool
    inputs: dict[str, Scalar] = {}


class RefusedRow(msgspec.Struct, frozen=True):
    """A row of a batch that has no prediction: the row itself is the cause, so asking again does not help."""

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


_VARIANTS: list[dict[str, Any]] = [
    {"name": "champion", "version": "b7f3", "weight": 0.5},
    {"name": "challenger", "version": "0c91", "weight": 0.5},
]
_REVISION: dict[str, Any] = {
    "name": "churn-2",
    "model": "churn",
    "revision": 1,
    "epoch": 0,
    "status": "draft",
    "seed": "a9c01f5be7d24c33",
    "champion": "champion",
    "variants": _VARIANTS,
    "metric": "log_loss",
    "window_s": 86400.0,
    "changed_at": 1767225600.0,
}
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
_PREDICTION_PROBLEMS = (UNKNOWN_MODEL, RECORD_TOO_LARGE, MODEL_UNAVAILABLE, OVERLOADED, JOURNAL_FULL, UNAVAILABLE)
_CHANGE_PROBLEMS = (UNKNOWN_EXPERIMENT, EXPERIMENT_STATE, EXPERIMENTS_UNAVAILABLE)

PREDICT = Operation(
    "predict",
    "POST",
    "/v1/models/{model}/predict",
    "Makes one prediction.",
    Prediction,
    body=PredictionRow,
    problems=_PREDICTION_PROBLEMS,
    tag="predictions",
    body_example=_ROW,
    answer_example=_PREDICTION,
)
PREDICT_BATCH = Operation(
    "predict_batch",
    "POST",
    "/v1/models/{model}/predict/batch",
    "Makes several predictions; a row that is refused has `error`, a problem, in place of its prediction.",
    Predictions,
    body=PredictionRows,
    problems=_PREDICTION_PROBLEMS,
    tag="predictions",
    body_example={"rows": [_ROW]},
    answer_example={"predictions": [_PREDICTION]},
    also=(Prediction, RefusedRow),
)
CREATE_EXPERIMENT = Operation(
    "create_experiment",
    "POST",
    "/v1/experiments",
    "Declares an experiment, which assigns nobody until it is started.",
    ExperimentRevision,
    body=NewExperiment,
    status=201,
    problems=(UNKNOWN_MODEL, EXPERIMENT_EXISTS, EXPERIMENTS_UNAVAILABLE, UNAVAILABLE),
    tag="experiments",
    body_example={"name": "churn-2", "model": "churn", "variants": _VARIANTS},
    answer_example=_REVISION,
)
LIST_EXPERIMENTS = Operation(
    "list_experiments",
    "GET",
    "/v1/experiments",
    "Lists every experiment, oldest first.",
    ExperimentList,
    tag="experiments",
    answer_example={"experiments": [_REVISION]},
)
SHOW_EXPERIMENT = Operation(
    "show_experiment",
    "GET",
    "/v1/experiments/{name}",
    "Shows an experiment as it stands.",
    ExperimentRevision,
    problems=(UNKNOWN_EXPERIMENT,),
    tag="experiments",
    answer_example=_REVISION,
)
START_EXPERIMENT = Operation(
    "start_experiment",
    "POST",
    "/v1/experiments/{name}/start",
    "Assigns units to the experiment's variants from now on.",
    ExperimentRevision,
    problems=_CHANGE_PROBLEMS,
    tag="experiments",
    answer_example=_REVISION,
)
STOP_EXPERIMENT = Operation(
    "stop_experiment",
    "POST",
    "/v1/experiments/{name}/stop",
    "Assigns nobody any more: the model's champion answers.",
    ExperimentRevision,
    problems=_CHANGE_PROBLEMS,
    tag="experiments",
    answer_example=_REVISION,
)
