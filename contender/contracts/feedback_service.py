"""The feedback service's calls: feedback in, results out."""

from typing import Annotated, Any

import msgspec

from contender.contracts.metrics import MetricName
from contender.contracts.operation import Operation
from contender.contracts.problems import JOURNAL_FULL, RECORD_TOO_LARGE, ProblemType
from contender.contracts.values import FEEDBACK_KINDS, EstimatorName, FeedbackKind, Hypothesis, Missing, Outcome

LARGEST_REPORT = 1e9
"""The largest rating or reward, in size."""

OUTCOME_CHARACTERS = 1000
"""The longest outcome that is a text."""

UNKNOWN_EXPERIMENT = ProblemType(
    "unknown-experiment", 404, "Neither the experiment nor a prediction for it was ever seen."
)
NO_VINTAGE = ProblemType("no-vintage", 404, "No results of the experiment are kept that are as old as `as_of`.")
NO_RECORD = ProblemType(
    "no-record",
    404,
    "The model has no matured rows to plan from: run an experiment of the champion against itself, or give "
    "standard_deviation and rows_per_day.",
)
TOO_MANY_OUTCOMES = ProblemType("too-many-outcomes", 413, "More outcomes in one call than allowed.")
INVALID_FEEDBACK = ProblemType("invalid-feedback", 422, "A prediction id, an outcome or a time is out of range.")
RESULTS_UNAVAILABLE = ProblemType(
    "results-unavailable", 503, "The store of the results can't be reached, or is too slow."
)


class FeedbackItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is reported on one prediction: exactly one of the values.

    It is the outcome, a rating, a reward, a conversion, a complaint, whether the answer was `shown` to its user, or
    what a person `decided`, one of the model's labels or anything else. A `conversion`, a `complaint` or `shown` of
    false takes one back. `time`, in seconds since the Unix epoch, is when it was known; default now.
    """

    prediction_id: str
    outcome: Outcome | msgspec.UnsetType = msgspec.UNSET
    time: float | None = None
    rating: float | msgspec.UnsetType = msgspec.UNSET
    reward: float | msgspec.UnsetType = msgspec.UNSET
    conversion: bool | msgspec.UnsetType = msgspec.UNSET
    complaint: bool | msgspec.UnsetType = msgspec.UNSET
    shown: bool | msgspec.UnsetType = msgspec.UNSET
    decided: Outcome | msgspec.UnsetType = msgspec.UNSET

    @property
    def reports(self) -> dict[FeedbackKind, Outcome]:
        """What is reported, by kind."""
        values = {kind: getattr(self, kind) for kind in FEEDBACK_KINDS}
        return {kind: value for kind, value in values.items() if value is not msgspec.UNSET}


class FeedbackBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One report as a FeedbackItem has it, or many under `feedback`."""

    feedback: list[FeedbackItem] | msgspec.UnsetType = msgspec.UNSET
    prediction_id: str | msgspec.UnsetType = msgspec.UNSET
    outcome: Outcome | msgspec.UnsetType = msgspec.UNSET
    time: float | None = None
    rating: float | msgspec.UnsetType = msgspec.UNSET
    reward: float | msgspec.UnsetType = msgspec.UNSET
    conversion: bool | msgspec.UnsetType = msgspec.UNSET
    complaint: bool | msgspec.UnsetType = msgspec.UNSET
    shown: bool | msgspec.UnsetType = msgspec.UNSET
    decided: Outcome | msgspec.UnsetType = msgspec.UNSET


class FeedbackAccepted(msgspec.Struct, frozen=True):
    """How many outcomes are on record."""

    accepted: int


class Interval(msgspec.Struct, frozen=True):
    """A mean with the interval that holds it at every look; `low` and `high` are null while unknown."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Matured rows with scores close to each other: their mean score, the share that came true, and their number."""

    mean_score: float
    positive_share: float
    n: int


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """One variant over all epochs.

    `n` counts predictions. `metrics` are over matured rows, `live` over all rows that have a label. `shown` counts the
    rows whose answer was put before its user, `decided` those that a person decided, and `overridden` those decided
    otherwise. `reliability` is the table behind a binary model's calibration error: about a tenth of the rows each, by
    score. `epoch_matured` counts the matured rows of the newest epoch that the deciding metric is over.
    """

    name: str
    version: str
    champion: bool
    n: int
    labelled: int
    matured: int
    matured_labelled: int
    corrections: int
    late: int
    refused: int
    duplicates: int
    fallbacks: int
    degraded: int
    metrics: dict[str, Interval]
    live: dict[str, Interval]
    unanswered: int = 0
    shown: int = 0
    decided: int = 0
    overridden: int = 0
    reliability: list[ReliabilityBin] = []
    epoch_matured: int = 0


class Sequence(msgspec.Struct, frozen=True):
    """A confidence sequence: the interval that all looks so far leave (`low` and `high` are null while unknown).

    `p` is the least of all looks, and `n` the observations of this one: rows, or days.
    """

    low: float | None
    high: float | None
    p: float
    n: int


class Effect(msgspec.Struct, frozen=True):
    """Challenger minus champion in one metric; `better` is null while the interval holds zero.

    The interval is the one that all looks so far leave, and `p` the least of them. `days` is the sequence over whole
    days, as of the last whole cycle. `decides` marks the metric of the verdict; the others are not corrected for their
    number, unless `corrected`. `estimator` says what the effect is the difference of: rows that were assigned to either
    variant, or two scores of the same rows.
    """

    estimate: float | None
    low: float | None
    high: float | None
    p: float
    n: int
    better: bool | None
    lower_is_better: bool
    days: Sequence | None = None
    decides: bool = False
    estimator: EstimatorName = "randomised"
    corrected: bool = False


class ExperimentSummary(msgspec.Struct, frozen=True):
    """An experiment in the list of experiments.

    `verdict` and what follows are as of `as_of`, when its results were last kept; null before the first time. `effect`
    is that of the challenger which the verdict is about, in the metric that decides.
    """

    name: str
    status: str
    model: str
    metric: str
    variants: list[str]
    verdict: str | None = None
    sentence: str | None = None
    matured: int | None = None
    whole_days: int | None = None
    as_of: float | None = None
    effect: Effect | None = None


class ExperimentSummaries(msgspec.Struct, frozen=True):
    """The experiments that were announced or have predictions, by name."""

    experiments: list[ExperimentSummary]


class Split(msgspec.Struct, frozen=True):
    """Predictions per variant, and the p-value of their following the configured split."""

    p: float
    counts: dict[str, int]


class Arrival(msgspec.Struct, frozen=True):
    """The p-value of labels arriving alike, the lowest of all challengers; null while it can't be tested."""

    p: float | None


class Checks(msgspec.Struct, frozen=True):
    """Whether a challenger may be compared with the champion: p-values, each the least of all looks.

    `arrival` is about labels within the window, `tail` about those after it, `unanswered` about rows without a
    prediction, `estimators` about the paired difference being that of assigned rows. Null: it can't be tested yet, or
    has no meaning.
    """

    arrival: float | None = None
    tail: float | None = None
    unanswered: float | None = None
    estimators: float | None = None


class DayPoint(msgspec.Struct, frozen=True):
    """The effect over all whole days up to one, and the sequence over them; its ends are null in the first days."""

    day: str
    estimate: float
    low: float | None
    high: float | None


class SegmentEffect(msgspec.Struct, frozen=True, kw_only=True):
    """The effect in the deciding metric among rows whose context has `value` at `segment`, one of the declared keys.

    `found` says that it is one of those that differ, among all segments at a false discovery rate of alpha. A null
    `value` stands for the rarer values together.
    """

    segment: str
    value: str | None
    n: int
    estimate: float | None
    low: float | None
    high: float | None
    found: bool = False


class Constancy(msgspec.Struct, frozen=True):
    """Whether the effect is the same on all days: the p-value, the least of all whole cycles, and the change a day.

    Null where it can't be tested yet.
    """

    p: float | None = None
    change_per_day: float | None = None


class Forecast(msgspec.Struct, frozen=True):
    """When a verdict may come if the effect stays as it is: after how many rows and days from now, as a median.

    Both are null where it can't be said yet; `reachable` is false where the effect is too close to the margin for any
    number of rows that the experiment may have.
    """

    rows_left: int | None = None
    days_left: float | None = None
    reachable: bool = True


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a planned experiment should find.

    Attributes:
        model: whose newest experiment with matured rows of the metric gives the record.
        metric: what decides.
        effect: how much better the challenger is, in the metric's own unit; 0 is for claims with a `margin`.
        shares: of the variants, the champion's first; they add up to the share of the traffic, at most 1.
        alpha: the probability of a wrong verdict, all looks and challengers together.
        power: the probability of a verdict that the figures "at power" are for.
        hypothesis: what a verdict claims.
        margin: that of the hypothesis.
        cycle_days: days of a cycle, 0: none; null: as in the record, else 7.
        window_s: how long a label may take; null: as in the record, else a day.
        exploration_share: the share of hidden labels that are seen all the same; null: as in the record.
        hidden_share: the share of rows whose label is hidden; null: as in the record.
        standard_deviation: that of the metric's value of a row, in place of the record's.
        rows_per_day: answered rows of all variants, in place of the record's.
    """

    model: str
    metric: MetricName
    effect: float = 0.0
    shares: tuple[float, ...] = (0.5, 0.5)
    alpha: float = 0.05
    power: float = 0.8
    hypothesis: Hypothesis = "superiority"
    margin: float = 0.0
    cycle_days: int | None = None
    window_s: float | None = None
    exploration_share: float | None = None
    hidden_share: float | None = None
    standard_deviation: float | None = None
    rows_per_day: float | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a verdict takes, in the median and with the probability `power`; null: more than can be planned for.

    Rows are the labelled rows of the champion and the smallest challenger together, as an effect counts them.

    Attributes:
        tuning_n: the N* that suits: declare it with the experiment.
        rows, rows_at_power: rows at which a look first claims something.
        days, days_at_power: days until then, over whole cycles, with the time in which the last row matures.
        rows_per_day: such rows in a day.
        horizon_rows: where a planned end has the power, half of alpha being spent there.
        fixed_rows: what a single look would take, with no other before it.
        row_variance: of the champion's value of a row, with units that return allowed for.
        effect_variance: rows times the squared standard error of the effect.
        day_variance: of the effect of a day, beyond what its rows bring.
        day_spread: the standard deviation of the champion's means of whole days.
        exploration_factor: by how much hidden labels raise the variance of the record.
        experiment: whose record it is; null: the figures were given.
        record_rows, record_days: the champion's rows there, and the whole days.
        cycle_days, window_s: what the days are planned with.
        sentences: the plan in words.
    """

    tuning_n: int
    rows: int | None
    rows_at_power: int | None
    days: float | None
    days_at_power: float | None
    rows_per_day: float
    horizon_rows: int
    fixed_rows: int
    row_variance: float
    effect_variance: float
    day_variance: float
    day_spread: float | None
    exploration_factor: float
    experiment: str | None
    record_rows: int
    record_days: int
    cycle_days: int
    window_s: float
    sentences: list[str] = []


class CurvePoint(msgspec.Struct, frozen=True):
    """The mean value of a variant's rows if the threshold of the formula were another."""

    threshold: float
    value: float


class Days(msgspec.Struct, frozen=True):
    """The whole days of an experiment, in its time zone, and how many a verdict takes at least (0: none)."""

    whole: int
    wanted: int
    time_zone: str


class Health(msgspec.Struct, frozen=True):
    """What became of the reports on this experiment. `unmatched` and `expired` count those of the whole service.

    `expired` are late reports on predictions that had been deleted after their retention.
    """

    unmatched: int
    refused: int
    late: int
    duplicates: int
    corrections: int
    degraded: int
    fallbacks: int
    expired: int = 0


GUARDRAIL = "stopped: guardrail"
LASTING = ("challenger better", "champion better", "no worse", "no difference", GUARDRAIL)
"""What a verdict can say; it is kept."""

_STATUSES = (
    "not started",
    "collecting",
    "paused",
    "leading",
    *LASTING,
    "ended",
    "withheld: split",
    "withheld: label arrival",
    "withheld: label tail",
    "withheld: unanswered rows",
    "withheld: estimators disagree",
    "withheld: dominant unit",
    "withheld: too few",
)
VerdictStatus = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(_STATUSES)})]
DECIDED, QUESTIONED, CONTRADICTED = "decided", "questioned", "contradicted"
"""The kinds of events: a verdict, and what is found after it."""

EventKind = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["decided", "questioned", "contradicted"]})]


class VerdictEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was found once and stays: a verdict, or a later finding that puts it in question.

    `number` counts the events of an experiment from 1. `at` is when it was found, in seconds since the Unix epoch;
    `?as_of=` with it shows the results that it rests on. Of `contradicted` events `status` is that of the verdict.
    """

    experiment: str
    number: int
    kind: EventKind
    challenger: str
    status: VerdictStatus
    sentence: str
    at: float
    model: str
    metric: str
    revision: int
    effect: Effect | None = None
    whole_days: int = 0
    offsets: dict[str, dict[str, int]] = {}

    @property
    def is_harm(self) -> bool:
        """Whether it says that a guardrail is breached, as the verdict or after one: the experiment is to be stopped.

        A challenger has one such event at most.
        """
        return self.status == GUARDRAIL and self.kind != CONTRADICTED


class VerdictEvents(msgspec.Struct, frozen=True):
    """What was found of an experiment, in order."""

    verdicts: list[VerdictEvent]


class Verdict(msgspec.Struct, frozen=True):
    """Where a comparison stands, in one word for programs and one sentence with its numbers for people.

    A verdict that was reached stays, with when (`decided_at`, seconds since the Unix epoch); `findings` are sentences
    about what was found later. Of a summary `challenger` is the one that it is about.
    """

    status: VerdictStatus
    sentence: str
    challenger: str = ""
    decided_at: float | None = None
    findings: list[str] = []

    @property
    def decided(self) -> bool:
        """Whether it lasts."""
        return self.status in LASTING


class Counts(msgspec.Struct, frozen=True):
    """What became of predictions and of the reports on them. Every report is in one of nine, from `labelled` on.

    `unanswered` rows were assigned a variant and got no prediction; `predictions` leaves them out.
    `unmatched` counts reports without a prediction, `no_experiment` (`outside` in JSON) those on predictions of no
    experiment, and `expired` late reports whose prediction had been deleted after its retention. `signals` are
    the reports of other kinds that count, such as ratings; `labelled` counts outcomes alone. Of the refused reports
    `early` are those from before their prediction, and `hidden` those on rows whose label does not count.
    """

    predictions: int = 0
    degraded: int = 0
    fallbacks: int = 0
    unanswered: int = 0
    labelled: int = 0
    corrections: int = 0
    late: int = 0
    refused: int = 0
    duplicates: int = 0
    unmatched: int = 0
    no_experiment: int = msgspec.field(default=0, name="outside")
    expired: int = 0
    signals: int = 0
    early: int = 0
    hidden: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of both."""
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    @property
    def reports(self) -> int:
        """All reports that were applied."""
        return sum(getattr(self, name) for name in self.__struct_fields__[4:-2])


class EpochCounts(msgspec.Struct, frozen=True):
    """The predictions of one epoch by variant, and how many of them have matured. Shadow scores are not in it."""

    epoch: int
    n: dict[str, int]
    matured: dict[str, int]


class Agreement(msgspec.Struct, frozen=True):
    """How far a challenger and the champion score the same rows alike, one of them in shadow.

    Of the `answered` rows of the two, `scored` have both scores: the others were not sampled, could not be scored, were
    dropped, or are on their way. `equal_labels` is the share with the same label, without a mean for a regression.
    `score_difference` is the mean absolute difference; for more than two classes half the sum over classes.
    """

    answered: int
    scored: int
    equal_labels: Interval
    score_difference: Interval


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on one experiment: variants, effects by challenger and metric, checks, and the verdict.

    `offsets` are the offsets of the topics up to which records are counted, by topic and partition. `since`, in seconds
    since the Unix epoch, is set where older predictions are not counted: when the counts were begun, the topics did not
    hold them any more. `verdicts` has one for each challenger, and `verdict` sums them up; `checks` is by challenger,
    and so are `timeline`, the effect in the deciding metric day by day, where it is a mean; `weeks`, the effect of each
    whole week or cycle alone; `constancy`, `segments`, and `forecast`. `value_curve` is by variant: what the formula of
    the metric `value` would give at other thresholds. `epochs` has the rows of each allocation, oldest first, and
    `agreement` is by challenger that has scores in shadow. `excluded` counts by reason the rows that got a variant and
    don't count, such as those of testers. `epoch` is that of the newest allocation; null before the router has told of
    the experiment.
    """

    experiment: str
    status: str
    model: str
    metric: MetricName
    champion: str
    alpha: float
    missing: Missing
    window_s: float
    watermark: float | None
    variants: list[VariantResult]
    effects: dict[str, dict[str, Effect]]
    split: Split
    arrival: Arrival
    verdict: Verdict
    health: Health
    totals: Counts
    offsets: dict[str, dict[str, int]]
    updated_at: float | None
    since: float | None = None
    verdicts: list[Verdict] = []
    checks: dict[str, Checks] = {}
    days: Days | None = None
    timeline: dict[str, list[DayPoint]] = {}
    weeks: dict[str, list[DayPoint]] = {}
    constancy: dict[str, Constancy] = {}
    segments: dict[str, list[SegmentEffect]] = {}
    forecast: dict[str, Forecast] = {}
    value_curve: dict[str, list[CurvePoint]] = {}
    epoch: int | None = None
    epochs: list[EpochCounts] = []
    agreement: dict[str, Agreement] = {}
    excluded: dict[str, int] = {}

    def __str__(self) -> str:
        return self.verdict.sentence


class ResultsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`as_of`, in seconds since the Unix epoch, asks for the results that were kept then; default: those of now."""

    as_of: float | None = None


_SUMMARY: dict[str, Any] = {
    "name": "churn-2",
    "status": "running",
    "model": "churn",
    "metric": "log_loss",
    "variants": ["champion", "challenger"],
}


def _variant(name: str, version: str, mean: float) -> dict[str, Any]:
    interval = {"mean": mean, "low": mean - 0.03, "high": mean + 0.03, "n": 3900}
    return {
        "name": name,
        "version": version,
        "champion": name == "champion",
        "n": 5000,
        "labelled": 4100,
        "matured": 4800,
        "matured_labelled": 3900,
        "corrections": 3,
        "late": 12,
        "refused": 0,
        "duplicates": 1,
        "fallbacks": 0,
        "degraded": 0,
        "metrics": {"log_loss": interval},
        "live": {"log_loss": interval},
    }


_EFFECT: dict[str, Any] = {
    "estimate": -0.06,
    "low": -0.1,
    "high": -0.02,
    "p": 0.0004,
    "n": 7800,
    "better": True,
    "lower_is_better": True,
}
_RESULTS: dict[str, Any] = {
    "experiment": "churn-2",
    "status": "running",
    "model": "churn",
    "metric": "log_loss",
    "champion": "champion",
    "alpha": 0.05,
    "missing": "excluded",
    "window_s": 86400.0,
    "watermark": 1767225600.0,
    "variants": [_variant("champion", "b7f3", 0.51), _variant("challenger", "0c91", 0.45)],
    "effects": {"challenger": {"log_loss": _EFFECT}},
    "split": {"p": 1.0, "counts": {"champion": 5000, "challenger": 5000}},
    "arrival": {"p": 0.8},
    "verdict": {
        "status": "challenger better",
        "sentence": "challenger is better than champion in log loss: challenger minus champion is -0.06 (95 % interval "
        "-0.1 to -0.02); champion has 3,900 matured rows and challenger has 3,900.",
    },
    "health": {
        "unmatched": 2,
        "refused": 0,
        "late": 24,
        "duplicates": 2,
        "corrections": 6,
        "degraded": 0,
        "fallbacks": 0,
    },
    "totals": {"predictions": 10000, "labelled": 8200, "corrections": 6, "late": 24, "duplicates": 2, "unmatched": 2},
    "offsets": {"predictions": {"0": 410}, "feedback": {"0": 377}},
    "updated_at": 1767229200.0,
}
_VERDICT_EVENT: dict[str, Any] = {
    "experiment": "churn-2",
    "number": 1,
    "kind": "decided",
    "challenger": "challenger",
    "status": "challenger better",
    "sentence": _RESULTS["verdict"]["sentence"],
    "at": 1767229200.0,
    "model": "churn",
    "metric": "log_loss",
    "revision": 2,
    "effect": _EFFECT,
    "whole_days": 7,
    "offsets": _RESULTS["offsets"],
}
_PLAN: dict[str, Any] = {
    "tuning_n": 22100,
    "rows": 18300,
    "rows_at_power": 29900,
    "days": 14.04,
    "days_at_power": 21.04,
    "rows_per_day": 1800.0,
    "horizon_rows": 22800,
    "fixed_rows": 18800,
    "row_variance": 0.06,
    "effect_variance": 0.24,
    "day_variance": 0.0,
    "day_spread": 0.011,
    "exploration_factor": 1.0,
    "experiment": "churn-1",
    "record_rows": 41000,
    "record_days": 23,
    "cycle_days": 7,
    "window_s": 3600.0,
    "sentences": ["In half of such experiments a verdict comes within 14 days, and in 80 % within 21 days."],
}

GIVE_FEEDBACK = Operation(
    "give_feedback",
    "POST",
    "/v1/feedback",
    "Accepts outcomes of predictions, all or none; they are on disk when this answers.",
    FeedbackAccepted,
    body=FeedbackBody,
    status=202,
    problems=(INVALID_FEEDBACK, TOO_MANY_OUTCOMES, RECORD_TOO_LARGE, JOURNAL_FULL),
    tag="feedback",
    body_example={"feedback": [{"prediction_id": "01KDVDPR00A9C01F5BE7D24C33-3-17", "outcome": 1}]},
    answer_example={"accepted": 1},
    also=(FeedbackItem,),
)
LIST_EXPERIMENTS = Operation(
    "list_experiments",
    "GET",
    "/v1/experiments",
    "Lists the experiments that were announced or have predictions, by name.",
    ExperimentSummaries,
    problems=(RESULTS_UNAVAILABLE,),
    tag="results",
    answer_example={"experiments": [_SUMMARY]},
)
GET_RESULTS = Operation(
    "get_results",
    "GET",
    "/v1/experiments/{name:path}/results",
    "Shows the results of an experiment at this moment, or as they were kept at the time `as_of`: those never change.",
    Results,
    query=ResultsQuery,
    problems=(UNKNOWN_EXPERIMENT, NO_VINTAGE, RESULTS_UNAVAILABLE),
    tag="results",
    answer_example=_RESULTS,
)
LIST_VERDICTS = Operation(
    "list_verdicts",
    "GET",
    "/v1/experiments/{name:path}/verdicts",
    "Lists the verdicts of an experiment and what was found after them, in order.",
    VerdictEvents,
    problems=(UNKNOWN_EXPERIMENT, RESULTS_UNAVAILABLE),
    tag="results",
    answer_example={"verdicts": [_VERDICT_EVENT]},
)
PLAN_EXPERIMENT = Operation(
    "plan_experiment",
    "POST",
    "/v1/plan",
    "Plans an experiment: the rows and days that a verdict takes, from the record of the model's champion. Nothing is "
    "kept.",
    Plan,
    body=PlanRequest,
    problems=(NO_RECORD, RESULTS_UNAVAILABLE),
    tag="results",
    body_example={"model": "churn", "metric": "log_loss", "effect": 0.01},
    answer_example=_PLAN,
)
