"""The life of an experiment: from a draft through revisions of it to its stop. Each change is a new revision."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from contender.contracts.experiments import (
    CHAMPION,
    Evidence,
    ExperimentChange,
    ExperimentRevision,
    NewExperiment,
    Placement,
    VariantAllocation,
)
from contender.contracts.inference_service import ModelVersion
from services.ab_router.domain.allocation import allocation_faults, moves_units
from services.ab_router.domain.bounds import is_range
from services.ab_router.domain.declarations import declaration_faults
from services.ab_router.domain.overlaps import is_in_force
from services.ab_router.domain.ramps import allocation_at
from services.ab_router.errors import ExperimentStateError
from shared.errors import FieldError, InvalidField

UNSAID = ExperimentChange()
"""A change of which nobody says who makes it and why."""
ROUTER = "contender"
"""Who makes the changes that nobody asks for: an epoch after a promotion, a verdict, a step of a schedule."""


def draft(
    new: NewExperiment, versions: Mapping[str, ModelVersion], *, seed: str, now: float, restart_of: str = ""
) -> ExperimentRevision:
    """The first revision.

    Args:
        new: the declaration.
        versions: those of the model by name, and its champion as `champion`.
        seed: of the hash that splits the units.
        now: seconds since the Unix epoch.
        restart_of: the experiment of which it is a restart.

    Raises:
        InvalidField: a field is out of range, or names something unknown.
    """
    new = replace(new, variants=[_with_alias(variant) for variant in new.variants])
    _raise_for(declaration_faults(new, versions))
    declared = {field: getattr(new, field) for field in NewExperiment.__struct_fields__ if field != "revision"}
    declared["seed"] = new.seed or seed
    declared["champion"] = new.champion or new.variants[0].name
    if new.label_range is None and not any(variant.alias for variant in new.variants):
        declared["label_range"] = _trained_range([versions[variant.version] for variant in new.variants])
    if new.canary is not None:
        declared["coverage"], weights = allocation_at(new.canary, 0, len(new.variants) - 1)
        declared["variants"] = weighted(new.variants, weights)
        declared["step"] = 0
    declared |= {"revision": 1, "epoch": 0, "status": "draft", "changed_at": now, "restart_of": restart_of}
    # What a revision holds is of its own types: a declaration's are stricter.
    return msgspec.convert(msgspec.to_builtins(declared), ExperimentRevision)


def declaration_of(experiment: ExperimentRevision) -> NewExperiment:
    """The declaration that a revision stands for."""
    fields = [*Placement.__struct_fields__, "name", "model", "variants", "champion"]
    return NewExperiment(**{field: getattr(experiment, field) for field in fields})


def started(
    experiment: ExperimentRevision,
    now: float,
    change: ExperimentChange = UNSAID,
    versions: Mapping[str, ModelVersion] | None = None,
) -> ExperimentRevision:
    """The revision that assigns units: a draft's first one, for which aliases are resolved, or a paused one's next.

    Args:
        experiment: the newest revision.
        now: seconds since the Unix epoch.
        change: who starts it and why.
        versions: as for `draft`; without them nothing is resolved or checked.

    Raises:
        ExperimentStateError: it runs already, or was stopped.
        InvalidField: its declaration does not suit the versions that aliases stand for now.
    """
    if experiment.status == "paused":
        return next_revision(experiment, now, change, status=_standing(experiment, experiment.verdicts))
    if experiment.status != "draft":
        raise state_error(experiment, "can't be started: only a draft or a paused one can")
    is_partial = experiment.coverage < 1
    if versions is None:
        return next_revision(experiment, now, change, status="running", epoch=1, started_at=now, was_partial=is_partial)
    champion = versions[CHAMPION].version
    pinned = [replace(arm, version=champion) if arm.alias else arm for arm in experiment.variants]
    _raise_for(declaration_faults(replace(declaration_of(experiment), variants=pinned), versions))
    return next_revision(
        experiment,
        now,
        change,
        status="running",
        epoch=1,
        started_at=now,
        was_partial=is_partial,
        variants=pinned,
        label_range=experiment.label_range or _trained_range([versions[arm.version] for arm in pinned]),
        model_champion=champion,
    )


def paused(experiment: ExperimentRevision, now: float, change: ExperimentChange = UNSAID) -> ExperimentRevision:
    """The revision in which the champion answers and no rows count.

    Raises:
        ExperimentStateError: it is not in force, or paused already.
    """
    if experiment.status not in ("running", "decided"):
        raise state_error(experiment, "can't be paused: only one that assigns units can")
    return next_revision(experiment, now, change, status="paused")


def ramped(
    experiment: ExperimentRevision,
    weights: Mapping[str, float] | None,
    coverage: float | None,
    now: float,
    change: ExperimentChange = UNSAID,
    *,
    step: int | None = None,
) -> ExperimentRevision:
    """The revision with another allocation, which opens an epoch; the same one where nothing differs.

    It is sticky as soon as one allocation moves a unit that is in: so many of its units have another variant than the
    hash gives them, whatever allocations follow.

    Weights change only where all units have taken part: else the units that were in lie in other parts of the hash than
    those that come, and the new ones would not be split by the new weights.

    Args:
        experiment: the newest revision.
        weights: by the variant's name; None: as they are.
        coverage: the share of the units that take part; None: as it is.
        now: seconds since the Unix epoch.
        change: who ramps it and why.
        step: the step of the canary's schedule that the allocation belongs to.

    Raises:
        ExperimentStateError: it is not in force.
        InvalidField: the hash can't split the units so, or a variant is missing or unknown.
    """
    if not is_in_force(experiment):
        raise state_error(experiment, "can't be ramped: only one in force can")
    if experiment.shadow and weights is not None:
        raise InvalidField.at("weights", "are fixed where the champion answers all rows: only the coverage can change")
    new_coverage = experiment.coverage if coverage is None else coverage
    new_variants = experiment.variants
    if not experiment.shadow:
        named = {arm.name: arm.weight for arm in experiment.variants} if weights is None else weights
        _raise_for(allocation_faults(experiment.variants, named, new_coverage))
        new_variants = weighted(experiment.variants, [named[arm.name] for arm in experiment.variants])
    if (new_variants, new_coverage, step) == (experiment.variants, experiment.coverage, experiment.step):
        return experiment
    was_partial = experiment.was_partial or experiment.coverage < 1
    if was_partial and new_variants != experiment.variants:
        raise InvalidField.at(
            "weights",
            "can't change since coverage has left units out: units that are in keep their variant, and those that come "
            "would not be split so. Change the coverage alone, or restart the experiment",
        )
    moves = moves_units(experiment.variants, experiment.coverage, new_variants, new_coverage)
    return next_revision(
        experiment,
        now,
        change,
        variants=new_variants,
        coverage=new_coverage,
        epoch=experiment.epoch + 1,
        sticky=experiment.sticky or moves,
        was_partial=was_partial or new_coverage < 1,
        step=step,
    )


def decided(experiment: ExperimentRevision, evidence: Evidence, now: float) -> ExperimentRevision:
    """The revision that keeps a challenger's verdict, decided once each challenger has one.

    It is the same revision where the verdict is known, or older than the known one.

    Raises:
        ExperimentStateError: it is not in force.
        InvalidField: the verdict is about something else than one of its challengers.
    """
    if not is_in_force(experiment):
        raise state_error(experiment, "takes no verdict: only one in force does")
    if evidence.challenger not in challengers(experiment):
        raise InvalidField.at("challenger", f"is {evidence.challenger!r}; expected one of {challengers(experiment)}")
    known = experiment.verdicts.get(evidence.challenger)
    if known and evidence.number <= known.number:
        return experiment
    verdicts = {**experiment.verdicts, evidence.challenger: evidence}
    status = experiment.status if experiment.status == "paused" else _standing(experiment, verdicts)
    change = ExperimentChange(f"verdict {evidence.number}: {evidence.status}", ROUTER)
    return next_revision(experiment, now, change, verdicts=verdicts, status=status, evidence=evidence)


def stopped(
    experiment: ExperimentRevision,
    now: float,
    change: ExperimentChange = UNSAID,
    evidence: Evidence | None = None,
    model_champion: str = "",
) -> ExperimentRevision:
    """The revision that has stopped, for good.

    Raises:
        ExperimentStateError: it is not in force.
    """
    if not is_in_force(experiment):
        raise state_error(experiment, "can't be stopped: only one in force can")
    champion = model_champion or experiment.model_champion
    return next_revision(
        experiment, now, change, status="stopped", stopped_at=now, evidence=evidence, model_champion=champion
    )


def with_champion(experiment: ExperimentRevision, champion: str, now: float) -> ExperimentRevision:
    """The revision after a promotion of the model, which opens an epoch; the pinned versions stay.

    A revision of a release that did not note the champion gets it without an epoch.
    """
    change = ExperimentChange(f"version {champion[:12]} is the model's champion now", ROUTER)
    epoch = experiment.epoch + bool(experiment.model_champion)
    return next_revision(experiment, now, change, model_champion=champion, epoch=epoch)


def challengers(experiment: ExperimentRevision) -> list[str]:
    """The names of the variants that are compared with the champion."""
    return [variant.name for variant in experiment.variants if variant.name != experiment.champion]


def _with_alias(variant: VariantAllocation) -> VariantAllocation:
    """The variant with its alias as the version, to be resolved at the start."""
    if CHAMPION not in (variant.version, variant.alias):
        return variant
    return replace(variant, version=CHAMPION, alias=CHAMPION)


def weighted(variants: Sequence[VariantAllocation], weights: Sequence[float]) -> list[VariantAllocation]:
    """The variants with other weights, in their order."""
    return [replace(variant, weight=weight) for variant, weight in zip(variants, weights, strict=True)]


def _standing(experiment: ExperimentRevision, verdicts: Mapping[str, Evidence]) -> str:
    """The status of an experiment that assigns units."""
    return "decided" if all(name in verdicts for name in challengers(experiment)) else "running"


def _trained_range(versions: Sequence[ModelVersion]) -> tuple[float, float] | None:
    """The range of all versions' training targets, widened by its own width; None where one does not record them."""
    trained = [version.target_range for version in versions if version.target_range]
    if len(trained) < len(versions):
        return None
    low, high = min(low for low, _ in trained), max(high for _, high in trained)
    widened = (2 * low - high, 2 * high - low)
    return widened if is_range(widened) else None


def next_revision(
    experiment: ExperimentRevision,
    now: float,
    change: ExperimentChange,
    *,
    evidence: Evidence | None = None,
    **changes: object,
) -> ExperimentRevision:
    """The next revision; times never go back, whichever router's clock they are of."""
    return replace(
        experiment,
        revision=experiment.revision + 1,
        changed_at=max(now, experiment.changed_at),
        changed_by=change.changed_by,
        reason=change.reason,
        override=change.override,
        evidence=evidence,
        **changes,
    )


def state_error(experiment: ExperimentRevision, why: str) -> ExperimentStateError:
    """The refusal of a change that the state of an experiment does not allow."""
    return ExperimentStateError(f"experiment {experiment.name} is {experiment.status}, and {why}")


def _raise_for(faults: Sequence[FieldError]) -> None:
    if faults:
        raise InvalidField("; ".join(f"{fault.field} {fault.message}" for fault in faults), faults)
