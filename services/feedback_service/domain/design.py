"""The design of an experiment: from its newest revision, or from its predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contender.contracts.ab_router import ExperimentRevision
from contender.contracts.metrics import Metric, metrics_of
from contender.contracts.tasks import TASKS, Task, task_named
from contender.contracts.values import Missing
from services.feedback_service.domain.snapshots import GroupSnapshot

_ALPHAS = (1e-9, 0.5)
_TUNING_N_LIMIT = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentDesign:
    """What an experiment compares, and how. `shares` and `epoch` are known from a revision alone."""

    name: str
    status: str = "unknown"
    model: str
    champion: str
    challengers: tuple[str, ...]
    versions: Mapping[str, str]
    shares: Mapping[str, float]
    epoch: int | None = None
    task: Task
    metric: Metric
    alpha: float = 0.05
    tuning_n: int = 5000
    window_s: float
    missing: Missing

    @property
    def variants(self) -> tuple[str, ...]:
        """The champion, then its challengers."""
        return (self.champion, *self.challengers)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the task."""
        return metrics_of(self.task)

    @property
    def alpha_each(self) -> float:
        """The share of alpha that one challenger may use up."""
        return self.alpha / max(1, len(self.challengers))


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
        )
    declared = [variant.name for variant in revision.variants]
    challengers = [variant for variant in [*declared, *seen] if variant != revision.champion]
    return ExperimentDesign(
        name=name,
        status=revision.status,
        model=revision.model,
        champion=revision.champion,
        challengers=tuple(dict.fromkeys(challengers)),
        versions={**versions, **{variant.name: variant.version for variant in revision.variants}},
        shares={variant.name: min(max(variant.weight, 0.0), 1.0) for variant in revision.variants},
        epoch=revision.epoch,
        task=task,
        metric=next((metric for metric in metrics_of(task) if metric.name == revision.metric), usual),
        alpha=min(max(revision.alpha, _ALPHAS[0]), _ALPHAS[1]),
        tuning_n=min(max(revision.tuning_n, 1), _TUNING_N_LIMIT),
        window_s=revision.window_s,
        missing=revision.missing,
    )


def _task(newest: GroupSnapshot | None, revision: ExperimentRevision | None) -> Task:
    """The task of the newest predictions; before any, the first task that has the declared metric."""
    if newest is not None:
        return task_named(newest.task)
    metric = revision.metric if revision is not None else ""
    return next((task for task in TASKS if metric in {known.name for known in metrics_of(task)}), TASKS[0])
