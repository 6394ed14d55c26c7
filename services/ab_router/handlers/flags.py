"""The use case of evaluation: the variant that a unit is assigned in an experiment, outside of a prediction."""

from collections.abc import Mapping
from dataclasses import dataclass

from contender.contracts.ab_router import AssignmentReason
from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.ofrep import Evaluation, Reason
from contender.contracts.values import Scalar
from services.ab_router.domain.experiments import assign, assigned_share
from services.ab_router.errors import UnknownFlagError
from services.ab_router.handlers.experiments import Experiments
from shared.errors import shortened

IN_FORCE = frozenset({"running", "paused", "decided"})
"""The states of an experiment in which it is a flag."""

_REASONS: dict[AssignmentReason, Reason] = {
    "split": "SPLIT",
    "forced": "TARGETING_MATCH",
    "paused": "DISABLED",
    "assignment unreadable": "UNKNOWN",
}
"""In the protocol's words; a unit that takes no part gets the champion whatever its hash is: STATIC."""


@dataclass(frozen=True, slots=True)
class UnitAssignment:
    """What a unit is assigned in one experiment: its variant, None outside of it, and why.

    `share` and `probability` are those of a prediction; None without a variant.
    """

    variant: VariantAllocation | None
    reason: AssignmentReason
    epoch: int
    share: float | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Flags:
    """Evaluates experiments in force as flags. It assigns as predictions do, and writes nothing."""

    experiments: Experiments

    async def evaluate(self, key: str, unit: str, context: Mapping[str, Scalar]) -> Evaluation:
        """The value of one flag for a unit.

        Raises:
            UnknownFlagError: no experiment in force has that name.
        """
        experiment = next((flag for flag in self._flags() if flag.name == key), None)
        if experiment is None:
            raise UnknownFlagError(f"no experiment in force is named {shortened(key)}")
        return await _evaluation(experiment, unit, context)

    async def evaluate_all(self, unit: str, context: Mapping[str, Scalar]) -> list[Evaluation]:
        """The values of all flags for a unit, that of the oldest experiment first."""
        return [await _evaluation(experiment, unit, context) for experiment in self._flags()]

    def _flags(self) -> list[ExperimentRevision]:
        return [experiment for experiment in self.experiments.all() if experiment.status in IN_FORCE]


async def assignment_of(experiment: ExperimentRevision, unit: str, _: Mapping[str, Scalar]) -> UnitAssignment:
    """What a prediction of the unit in this context would be assigned."""
    if experiment.status == "paused":
        return UnitAssignment(None, "paused", experiment.epoch)
    variant = assign(experiment, unit)
    if variant is None:
        return UnitAssignment(None, "outside coverage", experiment.epoch)
    share = assigned_share(experiment, variant)
    return UnitAssignment(variant, "split", experiment.epoch, share, share)


async def _evaluation(experiment: ExperimentRevision, unit: str, context: Mapping[str, Scalar]) -> Evaluation:
    assigned = await assignment_of(experiment, unit, context)
    champion = next(variant for variant in experiment.variants if variant.name == experiment.champion)
    variant = assigned.variant or champion
    outside = experiment.model_champion or champion.version
    metadata: dict[str, bool | int | float | str] = {
        "assignment": assigned.reason,
        "model": experiment.model,
        "version": assigned.variant.version if assigned.variant else outside,
        "revision": experiment.revision,
        "epoch": assigned.epoch,
    }
    figures = {"share": assigned.share, "probability": assigned.probability}
    metadata |= {name: value for name, value in figures.items() if value is not None}
    reason = _REASONS.get(assigned.reason, "STATIC")
    return Evaluation(key=experiment.name, value=variant.name, variant=variant.name, reason=reason, metadata=metadata)
