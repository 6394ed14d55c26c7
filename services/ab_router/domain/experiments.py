"""The rules of experiments: which are valid, how one goes from draft to running to stopped, who gets which variant."""

from collections.abc import Mapping

import msgspec

from contender.contracts.ab_router import ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.inference_service import ModelVersion
from contender.contracts.limits import ALPHAS, NAME, NAME_WORDS, SHARES, TUNING_ROWS, VARIANTS, WINDOWS_S
from contender.contracts.metrics import metrics_of
from contender.contracts.tasks import task_named
from services.ab_router.domain.hashing import bucket, choose, ranges
from services.ab_router.errors import ExperimentStateError
from shared.errors import FieldError, InvalidField

_WEIGHT_TOLERANCE = 1e-9


def draft(new: NewExperiment, versions: Mapping[str, ModelVersion], *, seed: str, now: float) -> ExperimentRevision:
    """The first revision.

    Raises:
        InvalidField: a field is out of range, or names something unknown.
    """
    faults = _faults(new, versions)
    if faults:
        raise InvalidField("; ".join(f"{fault.field} {fault.message}" for fault in faults), faults)
    declared = msgspec.structs.asdict(new) | {"champion": new.champion or new.variants[0].name}
    return ExperimentRevision(**declared, revision=1, epoch=0, status="draft", seed=seed, changed_at=now)


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


def _revised(experiment: ExperimentRevision, **changes: object) -> ExperimentRevision:
    return msgspec.structs.replace(experiment, revision=experiment.revision + 1, **changes)


def _faults(new: NewExperiment, versions: Mapping[str, ModelVersion]) -> list[FieldError]:
    names = [variant.name for variant in new.variants]
    checks = [
        ("name", NAME.fullmatch(new.name) is None, f"must be {NAME_WORDS}"),
        ("variants", not _within(len(names), VARIANTS), f"has {len(names)} entries; expected {_span(VARIANTS)}"),
        ("variants", len(set(names)) < len(names), "names a variant twice"),
        ("champion", new.champion is not None and new.champion not in names, "is not the name of a variant"),
        ("window_s", not _within(new.window_s, WINDOWS_S), "must be from one second to ten years"),
        ("alpha", not _within(new.alpha, ALPHAS), f"must be {_span(ALPHAS)}"),
        ("tuning_n", not _within(new.tuning_n, TUNING_ROWS), f"must be {_span(TUNING_ROWS)} rows"),
        ("coverage", not _within(new.coverage, SHARES), f"must be {_span(SHARES)}"),
    ]
    faults = [FieldError(field, message) for field, is_wrong, message in checks if is_wrong]
    total = sum(variant.weight for variant in new.variants)
    if not abs(total - 1) <= _WEIGHT_TOLERANCE:
        faults.append(FieldError("variants", f"has weights that add up to {total:g}; they must add up to 1"))
    for index, variant in enumerate(new.variants):
        path = f"variants[{index}]"
        if NAME.fullmatch(variant.name) is None:
            faults.append(FieldError(f"{path}.name", f"must be {NAME_WORDS}"))
        if not _within(variant.weight, SHARES):
            faults.append(FieldError(f"{path}.weight", f"must be {_span(SHARES)}"))
        if variant.version not in versions:
            faults.append(FieldError(f"{path}.version", f"is not a version of model {new.model}"))
    return faults + _metric_faults(new, versions)


def _metric_faults(new: NewExperiment, versions: Mapping[str, ModelVersion]) -> list[FieldError]:
    known = [versions[variant.version] for variant in new.variants if variant.version in versions]
    if not known:
        return []
    faults = []
    task = task_named(known[0].task)
    metrics = [metric.name for metric in metrics_of(task)]
    if len({(version.task, tuple(version.classes)) for version in known}) > 1:
        faults.append(FieldError("variants", "mixes versions of different tasks or classes"))
    elif new.metric not in metrics:
        faults.append(FieldError("metric", f"is not a metric of a {task.name} model: {', '.join(metrics)}"))
    if new.fallback_value is not None and (message := task.fallback_fault(new.fallback_value)):
        faults.append(FieldError("fallback_value", message))
    return faults


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _span(bounds: tuple[float, float]) -> str:
    return f"from {bounds[0]:,} to {bounds[1]:,}"
