"""Which version of an experiment may become the model's champion, and on which verdict."""

from contender.contracts.experiments import Evidence, ExperimentChange, ExperimentRevision, VariantAllocation
from contender.contracts.inference_service import Promotion
from services.ab_router.domain.experiments import challengers
from services.ab_router.domain.overlaps import is_in_force
from services.ab_router.errors import ExperimentStateError, NotDecidedError
from shared.errors import InvalidField, shortened

_BETTER = ("challenger better", "no worse")
"""Statuses of verdicts that speak for the challenger."""


def better_challenger(experiment: ExperimentRevision, named: str, override: str) -> VariantAllocation:
    """The challenger to promote: the one that a verdict names as better, or one named against the verdicts.

    Args:
        experiment: the newest revision.
        named: the challenger that the caller names; empty: the only one that may be meant.
        override: why it is to be promoted without a verdict; empty: it is not.

    Raises:
        ExperimentStateError: the experiment is not in force.
        InvalidField: it has no challenger of that name.
        NotDecidedError: no verdict names it as better, or more than one challenger may be meant.
    """
    if not is_in_force(experiment):
        raise ExperimentStateError(
            f"experiment {experiment.name} is {experiment.status}, and only one in force is promoted from; promote a "
            f"version by PUT /v1/models/{experiment.model}/aliases/champion of the inference service"
        )
    names = challengers(experiment)
    if named and named not in names:
        raise InvalidField.at(
            "variant", f"is {shortened(named)!r}; expected one of the challengers: {', '.join(names)}"
        )
    better = [name for name in names if better_evidence(experiment, name)]
    chosen = [named] if named else better or (names if override else [])
    if not override:
        chosen = [name for name in chosen if name in better]
    if not chosen:
        raise NotDecidedError(
            f"no verdict of experiment {experiment.name} names {named or 'a challenger'} as better: wait for one, or "
            "give an override that says why"
        )
    if len(chosen) > 1:
        raise NotDecidedError(
            f"several challengers of experiment {experiment.name} may be meant: name one of {', '.join(chosen)} as "
            "variant"
        )
    return next(variant for variant in experiment.variants if variant.name == chosen[0])


def better_evidence(experiment: ExperimentRevision, challenger: str) -> Evidence | None:
    """The verdict that names a challenger as better; None where there is none."""
    evidence = experiment.verdicts.get(challenger)
    return evidence if evidence and evidence.status in _BETTER else None


def promotion_of(
    variant: VariantAllocation, change: ExperimentChange, evidence: Evidence | None, name: str
) -> Promotion:
    """The promotion of a variant's version, by an experiment's name, on the word of whoever makes the change."""
    return Promotion(
        version=variant.version,
        changed_by=change.changed_by,
        reason=change.reason,
        experiment=name,
        verdict=evidence.number if evidence else None,
        evidence=evidence.sentence if evidence else "",
        override=change.override,
    )
