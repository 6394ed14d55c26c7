"""The router's calls: predictions and experiments."""

from typing import Annotated, Any, Literal

import msgspec

from contender.contracts import limits
from contender.contracts.metrics import LOG_LOSS_CLIP, MetricName
from contender.contracts.operation import Operation
from contender.contracts.problems import (
    JOURNAL_FULL,
    OVERLOADED,
    RECORD_TOO_LARGE,
    UNAVAILABLE,
    ProblemDetails,
    ProblemType,
)
from contender.contracts.values import ClockName, Correction, Hypothesis, Missing, OutcomeDesign, Scalar, Score

UNKNOWN_MODEL = ProblemType("unknown-model", 404, "No model of that name is registered.")
UNKNOWN_EXPERIMENT = ProblemType("unknown-experiment", 404, "No experiment has that name.")
EXPERIMENT_EXISTS = ProblemType("experiment-exists", 409, "An experiment has that name already.")
EXPERIMENT_STATE = ProblemType("experiment-state", 409, "The experiment's state does not allow this change.")
MODEL_UNAVAILABLE = ProblemType("model-unavailable", 503, "The champion can't answer, and no fallback is declared.")
EXPERIMENTS_UNAVAILABLE = ProblemType("experiments-unavailable", 503, "The database of experiments does not answer.")


def _between(bounds: tuple[float, float]) -> msgspec.Meta:
    """Bounds for the documents; the router checks them itself, and names every wrong field at once."""
    return msgspec.Meta(extra_json_schema={"minimum": bounds[0], "maximum": bounds[1]})


_Name = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{limits.NAME.pattern}$"})]
_Text = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": limits.TEXT_CHARACTERS})]
_Formula = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.FORMULA_CHARACTERS})]
_FEW = msgspec.Meta(extra_json_schema={"maxProperties": limits.KEYS})
_SOME_ROWS = msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": limits.ROWS})
_SOME_VARIANTS = msgspec.Meta(extra_json_schema={"minItems": limits.VARIANTS[0], "maxItems": limits.VARIANTS[1]})


class VariantAllocation(msgspec.Struct, frozen=True):
    """One variant of an experiment: the version that answers, and its share of the units."""

    name: _Name
    version: str
    weight: Annotated[float, _between(limits.SHARES)]


class Guardrail(msgspec.Struct, frozen=True):
    """A metric that the challenger must not harm by more than `margin`, in the metric's own unit.

    With a `segment`, one of the experiment's `segments`, it must not harm the rows of any of its values.
    """

    metric: str
    margin: Annotated[float, _between(limits.MARGINS)] = 0.0
    segment: str = ""


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment measures and how it decides: fixed before it starts.

    Attributes:
        metric: what decides.
        hypothesis: what a verdict claims; all but `superiority` need a `margin`.
        margin: in the metric's own unit, how much worse is still no harm, or how large a difference does not matter.
        guardrails: metrics that the challenger must not harm; harm is a verdict, and stops no traffic.
        window_s: how long after its prediction an outcome may come and count.
        missing: what a label that has not come by then means; `negative` is for binary models.
        early_s: how long before its prediction an outcome may be known: clocks differ.
        clock: `wall`, or `event` for a replay.
        time_zone: an IANA name; a day of the experiment begins at midnight there.
        cycle_days: days after which conditions repeat; a verdict takes whole cycles. 0: none, with a `cycle_reason`.
        cycle_reason: why days do not matter; every sentence of the experiment repeats it.
        alpha: the probability of a wrong verdict, all looks and challengers together.
        tuning_n: the rows at which the interval is tightest.
        horizon_rows: a planned end: half of alpha is spent on one look at so many rows.
        log_loss_clip: probabilities count as at least this, and at most 1 minus this.
        label_range: the lowest and the highest outcome of a regression; others are refused and counted. Null: the range
            of the versions' training targets, widened by its own width on both sides; where they record none, any
            number counts.
        error_limit: errors of a regression count as at most this in the winsorised metrics.
        outcome: whether an outcome would be the same under any answer. If so, the other variants score rows in shadow,
            and the effect is the difference of two scores of the same rows.
        shadow_share: the share of rows that are scored in shadow.
        labels_seen_if: a formula of the answer, such as `score < 0.3`: a label is seen only where it is true. Empty:
            whatever the answer.
        exploration_share: the share of the other rows whose label is seen all the same, since the application is asked
            to act so; 1 over a whole number.
        segments: keys of the context whose values the effect is shown for.
        correction: how metrics that do not decide allow for their number.
        value: the formula of the metric `value`, such as `if(outcome == 1, 20, 0) - if(score > 0.3, 2, 0)`.
    """

    metric: str
    hypothesis: Hypothesis = "superiority"
    margin: Annotated[float, _between(limits.MARGINS)] = 0.0
    guardrails: Annotated[list[Guardrail], msgspec.Meta(extra_json_schema={"maxItems": limits.GUARDRAILS})] = []
    window_s: Annotated[float, _between(limits.WINDOWS_S)]
    missing: Missing = "excluded"
    early_s: Annotated[float, _between(limits.EARLY_S)] = limits.UNDECLARED_EARLY_S
    clock: ClockName = "wall"
    time_zone: str = "UTC"
    cycle_days: Annotated[int, _between(limits.CYCLE_DAYS)] = 7
    cycle_reason: Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.REASON_CHARACTERS})] = ""
    alpha: Annotated[float, _between(limits.ALPHAS)] = 0.05
    tuning_n: Annotated[int, _between(limits.TUNING_ROWS)] = 5000
    horizon_rows: Annotated[int, _between(limits.HORIZON_ROWS)] | None = None
    log_loss_clip: Annotated[float, _between(limits.CLIPS)] = LOG_LOSS_CLIP
    label_range: tuple[float, float] | None = None
    error_limit: Annotated[float, _between(limits.ERROR_LIMITS)] | None = None
    outcome: OutcomeDesign = "may depend on the answer"
    shadow_share: Annotated[float, _between(limits.SHADOW_SHARES)] = 1.0
    labels_seen_if: _Formula = ""
    exploration_share: Annotated[float, _between(limits.EXPLORATION_SHARES)] = 0.0
    segments: Annotated[list[str], msgspec.Meta(extra_json_schema={"maxItems": limits.SEGMENTS})] = []
    correction: Correction = "none"
    value: _Formula = ""


class ExperimentRevision(Design, frozen=True, kw_only=True):
    """An experiment after a change; the newest revision of a name is the valid one."""

    name: str
    model: str
    revision: int
    epoch: int
    status: Literal["draft", "running", "stopped"]
    seed: str
    champion: str
    variants: list[VariantAllocation]
    coverage: float = 1.0
    fallback_value: float | None = None
    changed_at: float
    started_at: float | None = None
    stopped_at: float | None = None


class NewExperiment(Design, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as a caller declares it; `champion` is the name of a variant, by default the first.

    `fallback_value` is the score of the answer when the champion fails: a probability for a binary model, the value for
    a regression.
    """

    name: _Name
    model: str
    variants: Annotated[list[VariantAllocation], _SOME_VARIANTS]
    champion: str | None = None
    metric: MetricName = "log_loss"
    window_s: Annotated[float, _between(limits.WINDOWS_S)] = 86_400.0
    coverage: Annotated[float, _between(limits.SHARES)] = 1.0
    fallback_value: float | None = None


class ExperimentList(msgspec.Struct, frozen=True):
    """Every experiment, oldest first."""

    experiments: list[ExperimentRevision]


class PredictionRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row to score.

    The router assigns `unit`, such as a user, to a variant. The windows of features end at `time` (seconds since the
    Unix epoch, default now): a replay sets it. `context` is recorded with the prediction, for segments.
    """

    unit: _Text
    entities: Annotated[dict[str, str | int], _FEW] = {}
    inputs: dict[str, Scalar] = {}
    context: Annotated[dict[str, Scalar], _FEW] = {}
    time: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0})] | None = None
    return_inputs: bool = False


class PredictionRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows to score in one call."""

    rows: Annotated[list[PredictionRow], _SOME_ROWS]


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
    "Scores a row by the version that its unit is assigned, and records the prediction.",
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
    "Scores several rows; a refused row has `error`, a problem, in place of its prediction.",
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
    "Creates an experiment, which assigns no unit until it is started.",
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
    "Ends the assignment of units: the model's champion answers.",
    ExperimentRevision,
    problems=_CHANGE_PROBLEMS,
    tag="experiments",
    answer_example=_REVISION,
)
