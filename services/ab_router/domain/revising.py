"""Another declaration for an experiment that there is already: what of it may change, and what is fixed."""

from collections.abc import Mapping

from msgspec.structs import replace

from contender.contracts.experiments import (
    Design,
    ExperimentChange,
    ExperimentRevision,
    NewExperiment,
    Placement,
    VariantAllocation,
)
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain.experiments import draft, next_revision, state_error, weighted
from services.ab_router.errors import DesignFixedError
from shared.errors import FieldError

_FIXED = ("model", "seed", "champion", "variants", "coverage", *Design.__struct_fields__)
_POPULATION = ("namespace", "targeting", "holdout")
"""Fields that decide which units take part."""
_FREE = tuple(field for field in Placement.__struct_fields__ if field not in _FIXED)


def revised(
    experiment: ExperimentRevision, new: NewExperiment, versions: Mapping[str, ModelVersion], now: float
) -> ExperimentRevision:
    """The revision after another declaration; the same one where nothing differs.

    A draft may become anything. Of a started one the units that take part may change, which opens an epoch, and
    whatever decides neither how it measures nor how it splits its units.

    Raises:
        InvalidField: a field is out of range, or names something unknown.
        DesignFixedError: a field differs that is fixed at the start.
        ExperimentStateError: it was stopped.
    """
    if experiment.status == "stopped":
        raise state_error(experiment, "can't be revised: restart it under another name")
    declared = draft(new, versions, seed=experiment.seed, now=now, restart_of=experiment.restart_of)
    change = ExperimentChange(new.reason, new.changed_by)
    if experiment.status == "draft":
        fields = [*_FIXED, *_FREE, "step"]
    else:
        _check_fixed(experiment, new, declared)
        fields = list(_FREE)
    changed = {name: getattr(declared, name) for name in fields if getattr(declared, name) != getattr(experiment, name)}
    if not changed:
        return experiment
    if experiment.status != "draft" and not changed.keys().isdisjoint(_POPULATION):
        changed["epoch"] = experiment.epoch + 1
    return next_revision(experiment, now, change, **changed)


def _check_fixed(experiment: ExperimentRevision, new: NewExperiment, declared: ExperimentRevision) -> None:
    """Raise DesignFixedError for fields that differ; what a declaration leaves to the router does not."""
    left_out = {field for field in ("label_range", "champion") if getattr(new, field) is None}
    if experiment.canary is not None:
        left_out.add("coverage")
    if len(declared.variants) == len(experiment.variants):
        pinned = [_as_pinned(*pair) for pair in zip(declared.variants, experiment.variants, strict=True)]
        if experiment.canary is not None or experiment.bandit is not None:
            pinned = weighted(pinned, [current.weight for current in experiment.variants])
        if pinned == experiment.variants:
            left_out.add("variants")
    faults = [
        FieldError(field, "is fixed since the start: stop the experiment and restart it with another declaration")
        for field in _FIXED
        if field not in left_out and getattr(declared, field) != getattr(experiment, field)
    ]
    if faults:
        fields = ", ".join(fault.field for fault in faults)
        raise DesignFixedError(
            f"experiment {experiment.name} has started, and its {fields} can't be replaced: a ramp changes weights and "
            "coverage, a restart all the rest",
            faults,
        )


def _as_pinned(declared: VariantAllocation, current: VariantAllocation) -> VariantAllocation:
    """A declared variant with the version that its alias was resolved to; one may name that version as well."""
    is_same = (declared.alias == current.alias and declared.alias != "") or declared.version == current.version
    return replace(declared, version=current.version, alias=current.alias) if is_same else declared
