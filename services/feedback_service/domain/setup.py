"""What an experiment compares: from its newest revision, or from what its predictions tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contender.contracts.ab_router import ExperimentRevision
from contender.contracts.metrics import metrics_of
from contender.contracts.tasks import TaskName, task_named
from contender.contracts.values import Missing
from services.feedback_service.domain.snapshots import GroupSnapshot

_ALPHAS = (1e-9, 0.5)
_TUNING_N_LIMIT = 10**9


@dataclass(frozen=True, slots=True)
class Setup:
    """What is known of an experiment: its newest revision, or what its predictions tell."""

    name: str
    status: str
    model: str
    champion: str
    challengers: tuple[str, ...]
    versions: Mapping[str, str]
    shares: Mapping[str, float]
    epoch: int | None
    task: TaskName
    metric: str
    alpha: float
    tuning_n: int
    window_s: float
    missing: Missing

    @property
    def variants(self) -> tuple[str, ...]:
        """The champion, then its challengers."""
        return (self.champion, *self.challengers)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the task."""
        return tuple(metric.name for metric in metrics_of(task_named(self.task)))

    @property
    def alpha_each(self) -> float:
        """The share of alpha that one challenger may use up."""
        return self.alpha / max(1, len(self.challengers))


def setup_of(name: str, revision: ExperimentRevision | None, groups: Sequence[GroupSnapshot]) -> Setup:
    """What an experiment of that name compares; `groups` are its own, and may be none where there is a revision.

    The router bounds what a revision says, but another may have written it: it is brought to what can be computed with.
    """
    newest = max(groups, key=lambda group: group.epoch, default=None)
    seen = sorted({group.variant for group in groups})
    task: TaskName = "binary" if newest is None else newest.task
    versions = {group.variant: group.versions[-1] for group in groups if group.versions}
    if revision is None:
        champion = "champion" if "champion" in seen else seen[0]
        challengers = tuple(variant for variant in seen if variant != champion)
        model, window_s = (newest.model, newest.window_s) if newest else ("", 0.0)
        missing: Missing = newest.missing if newest else "excluded"
        usual = metrics_of(task_named(task))[0].name
        return Setup(
            name,
            "unknown",
            model,
            champion,
            challengers,
            versions,
            {},
            None,
            task,
            usual,
            0.05,
            5000,
            window_s,
            missing,
        )
    declared = [variant.name for variant in revision.variants]
    others = [variant for variant in [*declared, *seen] if variant != revision.champion]
    known = revision.metric in {metric.name for metric in metrics_of(task_named(task))}
    return Setup(
        name=name,
        status=revision.status,
        model=revision.model,
        champion=revision.champion,
        challengers=tuple(dict.fromkeys(others)),
        versions={**versions, **{variant.name: variant.version for variant in revision.variants}},
        shares={variant.name: min(max(variant.weight, 0.0), 1.0) for variant in revision.variants},
        epoch=revision.epoch,
        task=task,
        metric=revision.metric if known else metrics_of(task_named(task))[0].name,
        alpha=min(max(revision.alpha, _ALPHAS[0]), _ALPHAS[1]),
        tuning_n=min(max(revision.tuning_n, 1), _TUNING_N_LIMIT),
        window_s=revision.window_s,
        missing=revision.missing,
    )
