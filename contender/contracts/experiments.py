"""Experiments: how they are declared, their revisions, and the router's calls to change them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from contender.contracts import limits
from contender.contracts.ab_router import UNKNOWN_MODEL
from contender.contracts.metrics import LOG_LOSS_CLIP, MetricName
from contender.contracts.operation import Operation
from contender.contracts.problems import UNAVAILABLE, ProblemType
from contender.contracts.values import ClockName, Correction, Hypothesis, Missing, OutcomeDesign, Scalar

UNKNOWN_EXPERIMENT = ProblemType("unknown-experiment", 404, "No experiment has that name.")
EXPERIMENT_EXISTS = ProblemType("experiment-exists", 409, "An experiment has that name already.")
EXPERIMENT_STATE = ProblemType("experiment-state", 409, "The experiment's state does not allow this change.")
EXPERIMENT_CHANGED = ProblemType(
    "experiment-changed", 409, "The experiment has a newer revision than the one that the change was made for."
)
DESIGN_FIXED = ProblemType(
    "design-fixed", 409, "What an experiment measures and how it decides can't change after its start."
)
OVERLAP = ProblemType(
    "experiments-overlap", 409, "Another experiment on the model could take the same units: use parts of a namespace."
)
NOT_READY = ProblemType(
    "not-ready", 409, "The traffic of the last day does not suit the experiment; `override` starts it all the same."
)
NOT_DECIDED = ProblemType(
    "not-decided", 409, "No verdict names the version as better; `override` promotes it all the same."
)
EXPERIMENTS_UNAVAILABLE = ProblemType("experiments-unavailable", 503, "The database of experiments does not answer.")

Status = Literal["draft", "running", "paused", "decided", "stopped"]
"""`paused`: the champion answers and no rows count. `decided`: a verdict stands, and the traffic stays as allocated."""

UnitMissing = Literal["refuse", "champion"]

CHAMPION = "champion"
"""As a variant's version in a declaration, the model's champion at the start."""

CANARY_STEPS = (0.01, 0.05, 0.25, 0.5)


def between(bounds: tuple[float, float]) -> msgspec.Meta:
    """Bounds for the documents; the router checks them itself, and names every wrong field at once."""
    return msgspec.Meta(extra_json_schema={"minimum": bounds[0], "maximum": bounds[1]})


_Name = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{limits.NAME.pattern}$"})]
_Formula = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.FORMULA_CHARACTERS})]
_Reason = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.REASON_CHARACTERS})]
_Seed = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.SEED_CHARACTERS})]
_SOME_VARIANTS = msgspec.Meta(extra_json_schema={"minItems": limits.VARIANTS[0], "maxItems": limits.VARIANTS[1]})


class VariantAllocation(msgspec.Struct, frozen=True):
    """One variant of an experiment: the version that answers, and its share of the units.

    A declaration may name the alias `champion` as the version: the start resolves it to a version, and `alias` keeps
    the name. Only variants that score in shadow alone have a weight of 0.
    """

    name: _Name
    version: str
    weight: Annotated[float, between((0.0, limits.SHARES[1]))]
    alias: str = ""


class Guardrail(msgspec.Struct, frozen=True):
    """A metric that the challenger must not harm by more than `margin`, in the metric's own unit.

    With a `segment`, one of the experiment's `segments`, it must not harm the rows of any of its values.
    """

    metric: str
    margin: Annotated[float, between(limits.MARGINS)] = 0.0
    segment: str = ""


class Namespace(msgspec.Struct, frozen=True):
    """The part [`start`, `end`) of a namespace's units: experiments with parts that do not meet share no unit."""

    name: _Name
    start: Annotated[float, between((0.0, 1.0))] = 0.0
    end: Annotated[float, between((0.0, 1.0))] = 1.0


class TargetingRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A condition on a key of the context: exactly one of five kinds. A row without the key does not meet it.

    Attributes:
        key: of the context.
        equals: the value.
        one_of: the values.
        low, high: bounds of a number, both included; one may be left out.
        matches: a regular expression that the whole text matches.
        percent: the percentage of the key's values that take part, chosen by a hash of the value: for tenants, say.
    """

    key: str
    equals: Scalar | msgspec.UnsetType = msgspec.UNSET
    one_of: list[Scalar] | msgspec.UnsetType = msgspec.UNSET
    low: float | None = None
    high: float | None = None
    matches: str = ""
    percent: float | None = None


class Canary(msgspec.Struct, frozen=True):
    """A ramp by schedule: each challenger's share of the units step by step, with a champion arm of the same size.

    A step is left for the next one while guardrails hold, after `rows_per_step` matured rows in each arm and
    `seconds_per_step`. With fewer rows it is held: that is neither success nor harm.
    """

    steps: list[float] = msgspec.field(default_factory=lambda: list(CANARY_STEPS))
    rows_per_step: Annotated[int, between(limits.STEP_ROWS)] = 1_000
    seconds_per_step: Annotated[float, between(limits.STEP_S)] = 3_600.0


class Bandit(msgspec.Struct, frozen=True):
    """Weights by Thompson sampling on matured rows: each variant keeps `floor` at least, and moves open an epoch.

    Weights move every `seconds_per_step` at most, once each arm has `rows_per_arm` matured rows.
    """

    floor: Annotated[float, between(limits.BANDIT_FLOORS)] = 0.05
    rows_per_arm: Annotated[int, between(limits.STEP_ROWS)] = 100
    seconds_per_step: Annotated[float, between(limits.STEP_S)] = 3_600.0


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment measures and how it decides: fixed before it starts.

    Attributes:
        metric: what decides.
        hypothesis: what a verdict claims; all but `superiority` need a `margin`.
        margin: in the metric's own unit, how much worse is still no harm, or how large a difference does not matter.
        guardrails: metrics that the challenger must not harm; harm is a verdict.
        auto_stop: whether a breached guardrail stops the experiment.
        shadow: whether the champion answers all rows and the other variants score them in shadow alone.
        canary: the schedule by which the challengers' shares grow; null: weights and coverage are as declared.
        bandit: how weights follow the results; null: they do not.
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
    margin: Annotated[float, between(limits.MARGINS)] = 0.0
    guardrails: Annotated[Sequence[Guardrail], msgspec.Meta(extra_json_schema={"maxItems": limits.GUARDRAILS})] = []
    window_s: Annotated[float, between(limits.WINDOWS_S)]
    missing: Missing = "excluded"
    early_s: Annotated[float, between(limits.EARLY_S)] = limits.UNDECLARED_EARLY_S
    clock: ClockName = "wall"
    time_zone: str = "UTC"
    cycle_days: Annotated[int, between(limits.CYCLE_DAYS)] = 7
    cycle_reason: Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": limits.REASON_CHARACTERS})] = ""
    alpha: Annotated[float, between(limits.ALPHAS)] = 0.05
    tuning_n: Annotated[int, between(limits.TUNING_ROWS)] = 5000
    horizon_rows: Annotated[int, between(limits.HORIZON_ROWS)] | None = None
    log_loss_clip: Annotated[float, between(limits.CLIPS)] = LOG_LOSS_CLIP
    label_range: tuple[float, float] | None = None
    error_limit: Annotated[float, between(limits.ERROR_LIMITS)] | None = None
    outcome: OutcomeDesign = "may depend on the answer"
    shadow_share: Annotated[float, between(limits.SHADOW_SHARES)] = 1.0
    labels_seen_if: _Formula = ""
    exploration_share: Annotated[float, between(limits.EXPLORATION_SHARES)] = 0.0
    segments: Annotated[list[str], msgspec.Meta(extra_json_schema={"maxItems": limits.SEGMENTS})] = []
    correction: Correction = "none"
    value: _Formula = ""
    auto_stop: bool = True
    shadow: bool = False
    canary: Canary | None = None
    bandit: Bandit | None = None


class Placement(Design, frozen=True, kw_only=True):
    """A design, and which units take part.

    Attributes:
        coverage: the share of the units that take part, of those that the rest lets in.
        fallback_value: the score of the answer when the champion fails: a probability for a binary model, the value
            for a regression.
        namespace: the part of a namespace that the units are from; null: all units.
        targeting: conditions on the context, all of which a row meets to take part.
        forced: units that always get a variant, by unit, such as testers; their rows are not in the results.
        holdout: the share of the model's units that take part in no experiment; it is the same units in each.
        unit_missing: whether a row without a unit is refused, or answered by the champion outside of the experiment.
        owner: who answers for the experiment.
    """

    coverage: Annotated[float, between(limits.SHARES)] = 1.0
    fallback_value: float | None = None
    namespace: Namespace | None = None
    targeting: Annotated[Sequence[TargetingRule], msgspec.Meta(extra_json_schema={"maxItems": limits.RULES})] = []
    forced: Annotated[dict[str, str], msgspec.Meta(extra_json_schema={"maxProperties": limits.FORCED_UNITS})] = {}
    holdout: Annotated[float, between(limits.HOLDOUTS)] = 0.0
    unit_missing: UnitMissing = "refuse"
    owner: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict that a change rests on: event `number` of the experiment, with what it said and when."""

    experiment: str
    number: int
    challenger: str
    status: str
    sentence: str
    at: float


class ExperimentRevision(Placement, frozen=True, kw_only=True):
    """An experiment after a change; the newest revision of a name is the valid one.

    Attributes:
        epoch: counts the allocations since the start; a draft has 0.
        sticky: whether an earlier allocation gave units other variants than this one would: units that are in keep
            theirs.
        was_partial: whether an allocation since the start has left units out by its coverage.
        step: the step of the canary's schedule, from 0; null without one.
        model_champion: the version that answers outside of the experiment.
        verdicts: of each challenger that has one, by its name.
        changed_by: who made the change, as they say themselves.
        reason: why, in their words.
        evidence: the verdict that the change rests on.
        override: why the experiment was started, or its version promoted, against what the router found.
        restart_of: the experiment of which this one is a restart.
    """

    name: str
    model: str
    revision: int
    epoch: int
    status: Status
    seed: str
    champion: str
    variants: list[VariantAllocation]
    changed_at: float
    started_at: float | None = None
    stopped_at: float | None = None
    sticky: bool = False
    was_partial: bool = False
    step: int | None = None
    model_champion: str = ""
    verdicts: dict[str, Evidence] = {}
    changed_by: str = ""
    reason: str = ""
    evidence: Evidence | None = None
    override: str = ""
    restart_of: str = ""


# Revisions are read by older releases too, which ignore fields that they do not know; what callers declare is refused
# where a field is unknown, since it would have no effect.
class GuardrailDeclaration(Guardrail, frozen=True, forbid_unknown_fields=True):
    """A guardrail as a caller declares it."""


class NamespaceDeclaration(Namespace, frozen=True, forbid_unknown_fields=True):
    """A part of a namespace as a caller declares it."""


class TargetingDeclaration(TargetingRule, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A condition on the context as a caller declares it."""


class CanaryDeclaration(Canary, frozen=True, forbid_unknown_fields=True):
    """A canary's schedule as a caller declares it."""


class BanditDeclaration(Bandit, frozen=True, forbid_unknown_fields=True):
    """A bandit as a caller declares it."""


class NewExperiment(Placement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as a caller declares it; `champion` is the name of a variant, by default the first.

    With a `revision` it is to replace that one, and is refused if there is a newer one. With the `seed` of another
    installation's experiment its units get the same variants; empty: a fresh one, or, of a revision, the present one.
    """

    name: _Name
    model: str
    variants: Annotated[list[VariantAllocation], _SOME_VARIANTS]
    guardrails: Annotated[
        list[GuardrailDeclaration], msgspec.Meta(extra_json_schema={"maxItems": limits.GUARDRAILS})
    ] = []
    namespace: NamespaceDeclaration | None = None
    targeting: Annotated[list[TargetingDeclaration], msgspec.Meta(extra_json_schema={"maxItems": limits.RULES})] = []
    canary: CanaryDeclaration | None = None
    bandit: BanditDeclaration | None = None
    champion: str | None = None
    metric: MetricName = "log_loss"
    window_s: Annotated[float, between(limits.WINDOWS_S)] = 86_400.0
    seed: _Seed = ""
    revision: int | None = None
    changed_by: str = ""
    reason: _Reason = ""


class ExperimentList(msgspec.Struct, frozen=True):
    """Every experiment, oldest first."""

    experiments: list[ExperimentRevision]


class ExperimentChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who changes an experiment and why, as they say themselves; null or empty: not said.

    `revision` is the one that the caller has seen: a newer one refuses the change. `override` says why a start goes
    ahead though traffic is not ready, or a promotion without a verdict.
    """

    reason: _Reason = ""
    changed_by: str = ""
    revision: int | None = None
    override: _Reason = ""


class ChallengerPromotion(ExperimentChange, frozen=True, forbid_unknown_fields=True):
    """A promotion; `variant` names the challenger where verdicts leave open which one is meant."""

    variant: str = ""


class Ramp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another allocation: weights by variant, which add up to 1, the coverage, or both; null: as it is.

    Units that are in keep their variant, and an epoch begins.
    """

    weights: dict[str, float] | None = None
    coverage: Annotated[float, between(limits.SHARES)] | None = None
    reason: _Reason = ""
    changed_by: str = ""
    revision: int | None = None


class Restart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of the new draft; default: the old one's with `-2`, or the next free number."""

    name: str | None = None
    reason: _Reason = ""
    changed_by: str = ""


class FieldChange(msgspec.Struct, frozen=True):
    """A field of a revision that differs from the one before."""

    field: str
    before: Any
    after: Any


class HistoryEntry(msgspec.Struct, frozen=True):
    """A revision, and how it differs from the one before."""

    revision: ExperimentRevision
    changes: list[FieldChange]


class ExperimentHistory(msgspec.Struct, frozen=True):
    """All revisions of an experiment, oldest first."""

    history: list[HistoryEntry]


class RevisionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which revision: by its number, or the one in force at the Unix time `as_of`, in seconds; default: now's."""

    revision: int | None = None
    as_of: float | None = None


class Finding(msgspec.Struct, frozen=True):
    """Something that was looked at before a start. `field` is such as `inputs.plan`; one that `blocks` refuses it."""

    field: str
    message: str
    blocks: bool


class Overlap(msgspec.Struct, frozen=True):
    """Another experiment on the model that is in force, and whether it could take the same units."""

    experiment: str
    status: Status
    share: float
    shares_units: bool


class Readiness(msgspec.Struct, frozen=True):
    """Whether an experiment may start: what the last day's traffic says, and the other experiments on the model.

    `rows` counts the rows of the model in the last day, of `since`, in seconds since the Unix epoch, until now.
    """

    ready: bool
    findings: list[Finding]
    overlaps: list[Overlap]
    rows: int
    since: float | None = None


class TrafficHour(msgspec.Struct, frozen=True):
    """The rows of an hour, and those of them that were refused; it began at `start`, seconds since the Unix epoch."""

    start: float
    rows: int
    refused: int


class ColumnTraffic(msgspec.Struct, frozen=True):
    """A column of the request: the share of rows that had it with a value, and of those that had null there.

    `values` counts the values of a column whose categories some version knows, the most frequent first: 50 at most, and
    `…` the others. `unseen` are those of them that no version knows.
    """

    sent: float
    null: float
    values: dict[str, int] = {}
    unseen: dict[str, int] = {}


class ShadowLatency(msgspec.Struct, frozen=True):
    """Rows that a version scored in shadow: the seconds within which half and 95 % of them were, to a tenth."""

    rows: int
    p50_s: float
    p95_s: float


class ModelTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What callers sent of a model's rows in the last day: the present hour and the 23 before it.

    Attributes:
        since, until: seconds since the Unix epoch.
        rows: all that came, `refused` among them.
        hours: those in which rows came, oldest first.
        columns: of the request, by name, over the rows that were not refused.
        entities: the share of those rows with a key among their entities, by key.
        refusals: refused rows, by field.
        features: how often a feature was served with which status, by `view:feature`.
        shadows: latencies in shadow, by version.
    """

    model: str
    since: float
    until: float
    rows: int
    refused: int
    hours: list[TrafficHour] = []
    columns: dict[str, ColumnTraffic] = {}
    entities: dict[str, float] = {}
    refusals: dict[str, int] = {}
    features: dict[str, dict[str, int]] = {}
    shadows: dict[str, ShadowLatency] = {}


class StoppedExperiments(msgspec.Struct, frozen=True):
    """The experiments that were stopped."""

    experiments: list[ExperimentRevision]


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
_CHANGE_PROBLEMS = (UNKNOWN_EXPERIMENT, EXPERIMENT_STATE, EXPERIMENT_CHANGED, EXPERIMENTS_UNAVAILABLE)

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
    "Shows an experiment as it stands, or as it stood.",
    ExperimentRevision,
    query=RevisionQuery,
    problems=(UNKNOWN_EXPERIMENT, EXPERIMENTS_UNAVAILABLE),
    tag="experiments",
    answer_example=_REVISION,
)
REVISE_EXPERIMENT = Operation(
    "revise_experiment",
    "PUT",
    "/v1/experiments/{name}",
    "Replaces a draft; of a started experiment everything but its design, its seed and its allocation.",
    ExperimentRevision,
    body=NewExperiment,
    problems=(UNKNOWN_MODEL, *_CHANGE_PROBLEMS, DESIGN_FIXED, OVERLAP, UNAVAILABLE),
    tag="experiments",
    body_example={"name": "churn-2", "model": "churn", "variants": _VARIANTS, "reason": "a longer window"},
    answer_example=_REVISION,
)
START_EXPERIMENT = Operation(
    "start_experiment",
    "POST",
    "/v1/experiments/{name}/start",
    "Assigns units to the experiment's variants from now on; a paused one goes on.",
    ExperimentRevision,
    body=ExperimentChange,
    body_optional=True,
    problems=(UNKNOWN_MODEL, *_CHANGE_PROBLEMS, OVERLAP, NOT_READY, UNAVAILABLE),
    tag="experiments",
    body_example={"reason": "agreed in the review"},
    answer_example=_REVISION,
)
PAUSE_EXPERIMENT = Operation(
    "pause_experiment",
    "POST",
    "/v1/experiments/{name}/pause",
    "Lets the champion answer until the experiment is started again; no rows count meanwhile.",
    ExperimentRevision,
    body=ExperimentChange,
    body_optional=True,
    problems=_CHANGE_PROBLEMS,
    tag="experiments",
    body_example={"reason": "an incident"},
    answer_example=_REVISION,
)
RAMP_EXPERIMENT = Operation(
    "ramp_experiment",
    "POST",
    "/v1/experiments/{name}/ramp",
    "Changes weights or coverage: an epoch begins, and units that are in keep their variant.",
    ExperimentRevision,
    body=Ramp,
    problems=_CHANGE_PROBLEMS,
    tag="experiments",
    body_example={"coverage": 0.5, "reason": "no complaints"},
    answer_example=_REVISION,
)
STOP_EXPERIMENT = Operation(
    "stop_experiment",
    "POST",
    "/v1/experiments/{name}/stop",
    "Ends the assignment of units: the model's champion answers.",
    ExperimentRevision,
    body=ExperimentChange,
    body_optional=True,
    problems=_CHANGE_PROBLEMS,
    tag="experiments",
    body_example={"reason": "enough seen"},
    answer_example=_REVISION,
)
RESTART_EXPERIMENT = Operation(
    "restart_experiment",
    "POST",
    "/v1/experiments/{name}/restart",
    "Creates a draft with the same declaration and a fresh seed: its results begin anew.",
    ExperimentRevision,
    body=Restart,
    body_optional=True,
    problems=(UNKNOWN_MODEL, *_CHANGE_PROBLEMS, EXPERIMENT_EXISTS, UNAVAILABLE),
    tag="experiments",
    body_example={"name": "churn-3"},
    answer_example=_REVISION,
)
PROMOTE_CHALLENGER = Operation(
    "promote_challenger",
    "POST",
    "/v1/experiments/{name}/promote",
    "Makes the version that a verdict names as better the champion, and stops the experiment.",
    ExperimentRevision,
    body=ChallengerPromotion,
    body_optional=True,
    problems=(*_CHANGE_PROBLEMS, NOT_DECIDED, UNAVAILABLE),
    tag="experiments",
    body_example={"reason": "decided"},
    answer_example=_REVISION,
)
SHOW_HISTORY = Operation(
    "show_history",
    "GET",
    "/v1/experiments/{name}/history",
    "Lists the revisions of an experiment, oldest first, each with its changes.",
    ExperimentHistory,
    problems=(UNKNOWN_EXPERIMENT, EXPERIMENTS_UNAVAILABLE),
    tag="experiments",
    answer_example={"history": [{"revision": _REVISION, "changes": []}]},
)
SHOW_READINESS = Operation(
    "show_readiness",
    "GET",
    "/v1/experiments/{name}/readiness",
    "Says what speaks against a start: traffic that does not suit, and other experiments on the model.",
    Readiness,
    problems=(UNKNOWN_MODEL, UNKNOWN_EXPERIMENT, EXPERIMENTS_UNAVAILABLE, UNAVAILABLE),
    tag="experiments",
    answer_example={"ready": True, "findings": [], "overlaps": [], "rows": 41000, "since": 1767139200.0},
)
STOP_EXPERIMENTS = Operation(
    "stop_experiments",
    "POST",
    "/v1/models/{model}/stop",
    "Stops all experiments on a model at once: its champion answers.",
    StoppedExperiments,
    body=ExperimentChange,
    body_optional=True,
    problems=(EXPERIMENTS_UNAVAILABLE,),
    tag="experiments",
    body_example={"reason": "an incident"},
    answer_example={"experiments": [_REVISION]},
)
SHOW_TRAFFIC = Operation(
    "show_traffic",
    "GET",
    "/v1/models/{model}/traffic",
    "Shows what callers sent of a model's rows in the last day: the counts that readiness rests on.",
    ModelTraffic,
    problems=(UNKNOWN_MODEL, UNAVAILABLE),
    tag="experiments",
    answer_example={
        "model": "churn",
        "since": 1767139200.0,
        "until": 1767225000.0,
        "rows": 41000,
        "refused": 12,
        "hours": [{"start": 1767222000.0, "rows": 1700, "refused": 0}],
        "columns": {
            "plan": {"sent": 0.999, "null": 0.001, "values": {"pro": 30000, "trial": 400}, "unseen": {"trial": 400}}
        },
        "entities": {"customer": 1.0},
        "refusals": {"inputs.seats": 12},
        "features": {"logins:count_7d": {"PRESENT": 40000, "NOT_FOUND": 988}},
        "shadows": {"0c91": {"rows": 5000, "p50_s": 0.004, "p95_s": 0.011}},
    },
)
