"""The rules of experiments: which are valid, how one goes from draft to running to stopped, who gets which variant."""

from collections.abc import Mapping, Sequence

import msgspec

from contender.contracts.experiments import ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain.bounds import is_range
from services.ab_router.domain.declarations import declaration_faults
from services.ab_router.domain.hashing import bucket, choose, counted_shares, ranges
from services.ab_router.errors import ExperimentStateError
from shared.errors import InvalidField


def draft(new: NewExperiment, versions: Mapping[str, ModelVersion], *, seed: str, now: float) -> ExperimentRevision:
    """The first revision.

    Raises:
        InvalidField: a field is out of range, or names something unknown.
    """
    faults = declaration_faults(new, versions)
    if faults:
        raise InvalidField("; ".join(f"{fault.field} {fault.message}" for fault in faults), faults)
    declared = {field: getattr(new, field) for field in NewExperiment.__struct_fields__ if field != "revision"} | {
        "seed": new.seed or seed,
        "champion": new.champion or new.variants[0].name,
        "label_range": new.label_range or _trained_range([versions[variant.version] for variant in new.variants]),
    }
    return ExperimentRevision(**declared, revision=1, epoch=0, status="draft", changed_at=now)


def started(experiment: ExperimentRevision, now: float) -> ExperimentRevision:
    """The revision that runs.

    Raises:
        ExperimentStateError: it runs already, or was stopped.
    """
    if experiment.status != "draft":
        raise ExperimentStateError(f"experiment {experiment.name} is {experiment.status}; only a draft can be started")
    return _revised(experiment, status="running", epoch=1, started_at=now, changed_at=now)


def stopped(experiment: ExperimentRevision, now: float) -> ExperimentRevision:
    """The revision that has stopped, for good.

    Raises:
        ExperimentStateError: it does not run.
    """
    if experiment.status != "running":
        raise ExperimentStateError(f"experiment {experiment.name} is {experiment.status}; only a running one stops")
    return _revised(experiment, status="stopped", stopped_at=now, changed_at=now)


def assign(experiment: ExperimentRevision, unit: str) -> VariantAllocation | None:
    """The unit's variant; None when the coverage leaves the unit out."""
    unit_bucket = bucket(experiment.seed, unit)
    if unit_bucket is None:
        return None
    weights = [variant.weight for variant in experiment.variants]
    index = choose(unit_bucket, ranges(len(experiment.variants), experiment.coverage, weights))
    return None if index < 0 else experiment.variants[index]


def assigned_share(experiment: ExperimentRevision, variant: VariantAllocation) -> float:
    """The share of all units that get a variant, counted in steps of the hash."""
    weights = [each.weight for each in experiment.variants]
    return counted_shares(weights, experiment.coverage)[experiment.variants.index(variant)]


def _trained_range(versions: Sequence[ModelVersion]) -> tuple[float, float] | None:
    """The range of all versions' training targets, widened by its own width; None where one does not record them."""
    trained = [version.target_range for version in versions if version.target_range]
    if len(trained) < len(versions):
        return None
    low, high = min(low for low, _ in trained), max(high for _, high in trained)
    widened = (2 * low - high, 2 * high - low)
    return widened if is_range(widened) else None


def _revised(experiment: ExperimentRevision, **changes: object) -> ExperimentRevision:
    return msgspec.structs.replace(experiment, revision=experiment.revision + 1, **changes)
