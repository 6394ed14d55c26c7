"""The use case of evaluation: the variant that a unit is assigned in an experiment, outside of a prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from contender.contracts.ab_router import AssignmentReason, PredictionRow
from contender.contracts.experiments import ExperimentRevision
from contender.contracts.ofrep import Evaluation, Reason
from contender.contracts.values import Scalar
from services.ab_router.domain.assignment import Assignment
from services.ab_router.domain.overlaps import is_in_force
from services.ab_router.errors import ExperimentStoreError, UnknownFlagError
from services.ab_router.handlers.experiments import Experiments
from shared.errors import NotFound, Unavailable, shortened

_REASONS: dict[AssignmentReason, Reason] = {
    "split": "SPLIT",
    "forced": "TARGETING_MATCH",
    "paused": "DISABLED",
    "assignment unreadable": "UNKNOWN",
}
"""In the protocol's words; a unit that takes no part gets the champion whatever its hash is: STATIC."""


class Assigner(Protocol):
    """Assigns rows: the use case of predictions."""

    async def assignment(self, model: str, row: PredictionRow) -> Assignment:
        """What a prediction of the row would be assigned."""
        ...


@dataclass(frozen=True, slots=True)
class Flags:
    """Evaluates experiments in force as flags. It assigns as predictions do, and writes nothing."""

    experiments: Experiments
    assigner: Assigner

    async def evaluate(self, key: str, unit: str, context: Mapping[str, Scalar]) -> Evaluation:
        """The value of one flag for a unit.

        Raises:
            UnknownFlagError: no experiment in force has that name.
            ExperimentStoreError: the experiments were never read.
        """
        experiment = next((flag for flag in self._flags() if flag.name == key), None)
        if experiment is None:
            raise UnknownFlagError(f"no experiment in force is named {shortened(key)}")
        return await self._evaluated(experiment, unit, context)

    async def evaluate_all(self, unit: str, context: Mapping[str, Scalar]) -> list[Evaluation]:
        """The values of all flags for a unit, that of the oldest experiment first.

        Raises:
            ExperimentStoreError: the experiments were never read.
        """
        return [await self._evaluated(experiment, unit, context) for experiment in self._flags()]

    def _flags(self) -> list[ExperimentRevision]:
        if not self.experiments.is_known:
            raise ExperimentStoreError(
                "the router has not read its experiments yet, and can't tell which flags there are"
            )
        return [experiment for experiment in self.experiments.all() if is_in_force(experiment)]

    async def _evaluated(self, experiment: ExperimentRevision, unit: str, context: Mapping[str, Scalar]) -> Evaluation:
        evaluation = _evaluation(experiment, await self._assignment(experiment, unit, context))
        if self.experiments.is_stale:
            evaluation.metadata["stale"] = True
        return evaluation

    async def _assignment(self, experiment: ExperimentRevision, unit: str, context: Mapping[str, Scalar]) -> Assignment:
        """What a prediction of the unit in this context would be assigned, if by this experiment."""
        if experiment.status == "paused":
            return Assignment("paused", epoch=experiment.epoch)
        try:
            assignment = await self.assigner.assignment(experiment.model, PredictionRow(unit, context=dict(context)))
        except (NotFound, Unavailable):  # no prediction of the model is answered now
            return Assignment("no experiment", epoch=experiment.epoch)
        if assignment.experiment is None or assignment.experiment.name == experiment.name:
            return assignment
        return Assignment("other namespace", epoch=experiment.epoch)  # another experiment on the model takes the unit


def _evaluation(experiment: ExperimentRevision, assigned: Assignment) -> Evaluation:
    champion = next(variant for variant in experiment.variants if variant.name == experiment.champion)
    variant = assigned.variant or champion
    outside = experiment.model_champion or champion.version
    metadata: dict[str, bool | int | float | str] = {
        "assignment": assigned.reason,
        "model": experiment.model,
        "version": assigned.variant.version if assigned.variant else outside,
        "revision": experiment.revision,
        "epoch": assigned.epoch or experiment.epoch,
    }
    figures = {"share": assigned.share, "probability": assigned.probability}
    metadata |= {name: value for name, value in figures.items() if value is not None}
    reason = _REASONS.get(assigned.reason, "STATIC")
    return Evaluation(key=experiment.name, value=variant.name, variant=variant.name, reason=reason, metadata=metadata)
