"""Which experiments on a model could take the same units, and how large a part of the units each takes."""

from collections.abc import Iterable, Sequence

from contender.contracts.experiments import ExperimentRevision, Namespace, Overlap, Status
from services.ab_router.domain.hashing import counted_shares

NAMESPACE_STEPS = 1_000
"""Values of the hash by which units are in parts of a namespace."""
IN_FORCE: tuple[Status, ...] = ("running", "paused", "decided")


def overlaps(experiment: ExperimentRevision, others: Iterable[ExperimentRevision]) -> list[Overlap]:
    """The other experiments on the model that are in force: how large each is, and whether units could be in both."""
    return [
        Overlap(other.name, other.status, unit_share(other), shares_units(experiment, other))
        for other in others
        if is_in_force(other) and other.model == experiment.model and other.name != experiment.name
    ]


def is_in_force(experiment: ExperimentRevision) -> bool:
    """Whether an experiment has started and not stopped."""
    return experiment.status in IN_FORCE


def shares_units(experiment: ExperimentRevision, other: ExperimentRevision) -> bool:
    """Whether a unit could be in both: no only where they have parts of one namespace that do not meet."""
    first, second = experiment.namespace, other.namespace
    if first is None or second is None or first.name != second.name:
        return True
    return max(first.start, second.start) < min(first.end, second.end)


def unit_share(experiment: ExperimentRevision) -> float:
    """The share of the model's units that an experiment takes, whatever its targeting, counted in steps."""
    weights = [variant.weight for variant in experiment.variants]
    assigned = sum(counted_shares(weights, experiment.coverage))
    return round(namespace_share(experiment.namespace) * (1 - experiment.holdout) * assigned, 6)


def namespace_share(namespace: Namespace | None) -> float:
    """The share of all units in a part of a namespace, counted in steps."""
    if namespace is None:
        return 1.0
    steps = [step / NAMESPACE_STEPS for step in range(NAMESPACE_STEPS)]
    return sum(namespace.start <= step < namespace.end for step in steps) / NAMESPACE_STEPS


def overlap_sentence(experiment: ExperimentRevision, overlapping: Sequence[Overlap]) -> str:
    """Why an experiment can't start beside others, and what solves it."""
    names = ", ".join(f"{overlap.experiment} ({overlap.status})" for overlap in overlapping)
    return (
        f"experiment {experiment.name} could take the same units of model {experiment.model} as {names}: stop those, "
        f"or give each experiment a part of one namespace that meets no other's"
    )
