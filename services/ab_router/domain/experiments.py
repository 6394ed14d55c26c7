"""What an experiment may be, and how it goes from draft to running to stopped."""

import re
from collections.abc import Mapping
from itertools import pairwise

import msgspec

from contender.contracts.ab_router import ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.inference_service import ModelVersion
from contender.contracts.metrics import metrics_of
from contender.contracts.problems import FieldError
from contender.contracts.tasks import TaskName, task_named
from services.ab_router.domain.hashing import bucket, choose, ranges
from services.ab_router.errors import ExperimentStateError
from shared.errors import InvalidField

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WEIGHT_TOLERANCE = 1e-9
_VARIANT_LIMIT = 10
_LEAST_SHARE = 1e-6
_ALPHAS = (1e-9, 0.5)
_TUNING_N_LIMIT = 10**9
_WINDOWS_S = (1.0, 10 * 365.25 * 86_400)


def draft(new: NewExperiment, versions: Mapping[str, ModelVersion], *, seed: str, now: float) -> ExperimentRevision:
    """The first revision.

    Raises:
        InvalidField: a field is out of range, or names what there is not.
    """
    faults = _faults(new, versions)
    if faults:
        raise InvalidField("; ".join(f"{fault.field} {fault.message}" for fault in faults), faults)
    return ExperimentRevision(
        name=new.name,
        model=new.model,
        revision=1,
        epoch=0,
        status="draft",
        seed=seed,
        champion=new.champion or new.variants[0].name,
        variants=new.variants,
        metric=new.metric,
        window_s=new.window_s,
        missing=new.missing,
        alpha=new.alpha,
        tuning_n=new.tuning_n,
        coverage=new.coverage,
        fallback_value=new.fallback_value,
        changed_at=now,
    )


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
    place = bucket(experiment.seed, unit)
    if place is None:
        return None
    shares = ranges(len(experiment.variants), experiment.coverage, [one.weight for one in experiment.variants])
    index = choose(place, shares)
    return None if index < 0 else experiment.variants[index]


def _revised(experiment: ExperimentRevision, **changes: object) -> ExperimentRevision:
    return msgspec.structs.replace(experiment, revision=experiment.revision + 1, **changes)


def _faults(new: NewExperiment, versions: Mapping[str, ModelVersion]) -> list[FieldError]:
    names = [variant.name for variant in new.variants]
    checks = [
        ("name", _NAME.fullmatch(new.name) is None, "is not a name: letters, digits, dot, dash, underscore, up to 100"),
        ("variants", not 2 <= len(names) <= _VARIANT_LIMIT, f"has {len(names)} entries, from 2 to {_VARIANT_LIMIT} do"),  # noqa: PLR2004
        ("variants", len(set(names)) < len(names), "names a variant twice"),
        ("champion", new.champion is not None and new.champion not in names, "is not the name of a variant"),
        ("window_s", not _WINDOWS_S[0] <= new.window_s <= _WINDOWS_S[1], "is not from one second to ten years"),
        ("alpha", not _ALPHAS[0] <= new.alpha <= _ALPHAS[1], f"is not from {_ALPHAS[0]:g} to {_ALPHAS[1]:g}"),
        ("tuning_n", not 1 <= new.tuning_n <= _TUNING_N_LIMIT, f"is not a number of rows up to {_TUNING_N_LIMIT:,}"),
        ("coverage", not _LEAST_SHARE <= new.coverage <= 1, f"is not from {_LEAST_SHARE:g} to 1"),
    ]
    found = [FieldError(field, message) for field, wrong, message in checks if wrong]
    total = sum(variant.weight for variant in new.variants)
    if not abs(total - 1) <= _WEIGHT_TOLERANCE:
        found.append(FieldError("variants", f"has weights that add up to {total:g}, not to 1"))
    for index, variant in enumerate(new.variants):
        where = f"variants[{index}]"
        if _NAME.fullmatch(variant.name) is None:
            found.append(FieldError(f"{where}.name", "is not a name"))
        if not _LEAST_SHARE <= variant.weight <= 1:
            found.append(FieldError(f"{where}.weight", f"is not from {_LEAST_SHARE:g} to 1"))
        if variant.version not in versions:
            found.append(FieldError(f"{where}.version", f"is not a version of model {new.model}"))
    return found + _metric_faults(new, versions)


def _metric_faults(new: NewExperiment, versions: Mapping[str, ModelVersion]) -> list[FieldError]:
    used = [versions[variant.version] for variant in new.variants if variant.version in versions]
    found = []
    if any((one.task, one.classes) != (other.task, other.classes) for one, other in pairwise(used)):
        found.append(FieldError("variants", "mixes versions of different tasks or classes"))
    elif used and new.metric not in (known := [metric.name for metric in metrics_of(task_named(used[0].task))]):
        found.append(FieldError("metric", f"is not a metric of a {used[0].task} model: {', '.join(known)}"))
    if new.fallback_value is not None and used:
        found += _fallback_faults(new.fallback_value, used[0].task)
    return found


def _fallback_faults(value: float, task: TaskName) -> list[FieldError]:
    wrong = task_named(task).fallback_fault(value)
    return [FieldError("fallback_value", wrong)] if wrong else []
