"""The design of an experiment: from its newest revision, or from its predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from contender.contracts import limits
from contender.contracts.experiments import ExperimentRevision
from contender.contracts.metrics import Metric, declared_metrics, metric_about, metrics_of
from contender.contracts.tasks import TASKS, Task, task_named
from contender.contracts.values import (
    FEEDBACK_KINDS,
    OUTCOME,
    ClockName,
    Correction,
    Hypothesis,
    Missing,
    OutcomeDesign,
)
from services.feedback_service.domain.snapshots import GroupSnapshot, SumsSnapshot

CYCLE_DAYS = 7
"""Days of a cycle where no revision declares them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentDesign:
    """What an experiment compares, and how; the fields are those of a revision.

    `shares`, `epoch`, `started_at` and `stopped_at` are known from a revision alone. `reported` names the metrics of
    reports that are no outcomes, where there are any. Guardrails over segments stand apart, each with the key of its
    segments.
    """

    name: str
    status: str = "unknown"
    model: str
    champion: str
    challengers: tuple[str, ...]
    versions: Mapping[str, str]
    shares: Mapping[str, float]
    epoch: int | None = None
    revision: int = 0
    started_at: float | None = None
    stopped_at: float | None = None
    task: Task
    metric: Metric
    hypothesis: Hypothesis = "superiority"
    margin: float = 0.0
    guardrails: tuple[tuple[Metric, float], ...] = ()
    segment_guardrails: tuple[tuple[Metric, float, str], ...] = ()
    segments: tuple[str, ...] = ()
    correction: Correction = "none"
    alpha: float = 0.05
    tuning_n: int = 5000
    horizon_rows: int | None = None
    window_s: float
    missing: Missing
    clock: ClockName
    time_zone: ZoneInfo
    cycle_days: int = CYCLE_DAYS
    cycle_reason: str = ""
    log_loss_clip: float = 1e-7
    error_limit: float | None = None
    value: str = ""
    reported: frozenset[str] = frozenset()
    outcome: OutcomeDesign = "may depend on the answer"
    labels_seen_if: str = ""
    shadow: bool = False

    @property
    def allows_pairs(self) -> bool:
        """Whether two scores of one row may be compared by its one outcome."""
        return self.outcome == "independent of the answer"

    @property
    def undecidable(self) -> str:
        """Why no verdict is possible, in words: a shadow has pairs alone. Empty where one is."""
        if not self.shadow or (self.allows_pairs and self.metric.has_pairs):
            return ""
        return f"{self.metric.words} is no mean over labelled rows" if self.allows_pairs else _MAY_DEPEND

    @property
    def variants(self) -> tuple[str, ...]:
        """The champion, then its challengers."""
        return (self.champion, *self.challengers)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the task whose needs are declared.

        Those of reports that nobody sends are left out, unless the experiment rests on them.
        """
        declared = {self.metric, *(metric for metric, _ in self.guardrails)}
        return tuple(
            metric
            for metric in declared_metrics(self.task, self)
            if metric.feedback in (None, OUTCOME) or metric.name in self.reported or metric in declared
        )

    @property
    def alpha_each(self) -> float:
        """The share of alpha that one challenger may use up."""
        return self.alpha / self.comparisons

    @property
    def alpha_rows(self) -> float:
        """The share of it that all looks at the deciding metric may use up: a planned end keeps half for itself."""
        return self.alpha_each if self.horizon_rows is None else self.alpha_each / 2.0

    @property
    def alpha_guardrail(self) -> float:
        """The share of it that one guardrail may use up."""
        return self.alpha_each / max(1, len(self.guardrails) + len(self.segment_guardrails))

    @property
    def corrected(self) -> int:
        """How many metrics that do not decide are corrected for their number; 0 without a correction."""
        return len(self.metrics) - 1 if self.correction != "none" else 0

    @property
    def comparisons(self) -> int:
        """How many challengers share alpha."""
        return max(1, len(self.challengers))

    @property
    def assumes_negative(self) -> bool:
        """Whether a missing label is an outcome; models of other tasks have no negative one."""
        return self.missing == "negative" and self.task.negative_outcome is not None

    def counts_missing(self, metric: Metric) -> bool:
        """Whether a row without a report counts in a metric."""
        return metric.of_all_rows or (self.assumes_negative and metric.feedback == OUTCOME)


def design_of(name: str, revision: ExperimentRevision | None, groups: Sequence[GroupSnapshot]) -> ExperimentDesign:
    """The design of the experiment of that name; `groups` are its own, and may be empty if there is a revision.

    The router bounds the numbers of a revision, but another program may have written it: they are clipped here.
    """
    newest = max(groups, key=lambda group: group.epoch, default=None)
    seen = sorted({group.variant for group in groups})
    versions = {group.variant: group.versions[-1] for group in groups if group.versions}
    task = _task(newest, revision)
    usual = metrics_of(task)[0]
    if revision is None:
        champion = "champion" if "champion" in seen else seen[0]
        return ExperimentDesign(
            name=name,
            model=newest.model if newest else "",
            champion=champion,
            challengers=tuple(variant for variant in seen if variant != champion),
            versions=versions,
            shares={},
            task=task,
            metric=usual,
            window_s=newest.window_s if newest else 0.0,
            missing=newest.missing if newest else "excluded",
            clock=newest.clock if newest else "wall",
            time_zone=zone_named(newest.time_zone if newest else "UTC"),
            reported=_reported(groups),
        )
    declared = [variant.name for variant in revision.variants]
    challengers = [variant for variant in [*declared, *seen] if variant != revision.champion]
    metrics = {metric.name: metric for metric in declared_metrics(task, revision)}
    return ExperimentDesign(
        name=name,
        status=revision.status,
        model=revision.model,
        champion=revision.champion,
        challengers=tuple(dict.fromkeys(challengers)),
        versions={**versions, **{variant.name: variant.version for variant in revision.variants}},
        shares={variant.name: min(max(variant.weight, 0.0), 1.0) for variant in revision.variants},
        epoch=revision.epoch,
        revision=revision.revision,
        started_at=revision.started_at,
        stopped_at=revision.stopped_at,
        task=task,
        metric=metrics.get(revision.metric, usual),
        hypothesis=revision.hypothesis,
        margin=_within(revision.margin, limits.MARGINS),
        guardrails=tuple(
            (metrics[guardrail.metric], _within(guardrail.margin, limits.MARGINS))
            for guardrail in revision.guardrails
            if guardrail.metric in metrics and not guardrail.segment
        ),
        segment_guardrails=tuple(
            (metrics[guardrail.metric], _within(guardrail.margin, limits.MARGINS), guardrail.segment)
            for guardrail in revision.guardrails
            if guardrail.metric in metrics and guardrail.segment
        ),
        segments=tuple(revision.segments[: limits.SEGMENTS]),
        correction=revision.correction,
        alpha=_within(revision.alpha, limits.ALPHAS),
        tuning_n=round(_within(revision.tuning_n, limits.TUNING_ROWS)),
        horizon_rows=revision.horizon_rows,
        window_s=revision.window_s,
        missing=revision.missing,
        clock=revision.clock,
        time_zone=zone_named(revision.time_zone),
        cycle_days=round(_within(revision.cycle_days, limits.CYCLE_DAYS)),
        cycle_reason=revision.cycle_reason,
        log_loss_clip=_within(revision.log_loss_clip, limits.CLIPS),
        outcome=revision.outcome,
        labels_seen_if=revision.labels_seen_if,
        shadow=revision.shadow,
        error_limit=None if revision.error_limit is None else _within(revision.error_limit, limits.ERROR_LIMITS),
        value=revision.value,
        reported=_reported(groups),
    )


_MAY_DEPEND = "the outcome may depend on the answer"


def _reported(groups: Sequence[GroupSnapshot]) -> frozenset[str]:
    """The names of metrics that are about reports of which there are any."""
    cohorts = [cohort for group in groups for cohort in group.cohorts]
    return frozenset(
        metric.name
        for metric in map(metric_about, FEEDBACK_KINDS[1:])
        if any(
            sums.totals.get(metric.totals_name) or (sums.rows and not metric.of_all_rows)
            for sums in (cohort.ledgers.get(metric.ledger, SumsSnapshot()) for cohort in cohorts)
        )
    )


def zone_named(name: str) -> ZoneInfo:
    """The time zone of that name; UTC where this computer does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def _within(number: float, bounds: tuple[float, float]) -> float:
    return min(max(number, bounds[0]), bounds[1])


def _task(newest: GroupSnapshot | None, revision: ExperimentRevision | None) -> Task:
    """The task of the newest predictions; before any, the first task that has the declared metric."""
    if newest is not None:
        return task_named(newest.task)
    metric = revision.metric if revision is not None else ""
    return next((task for task in TASKS if metric in {known.name for known in metrics_of(task)}), TASKS[0])
