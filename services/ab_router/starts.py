"""What must hold before an experiment takes units: its versions, the traffic, and room beside other experiments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contender.contracts.experiments import CHAMPION, ExperimentRevision, NewExperiment, Readiness
from contender.contracts.inference_service import ModelVersion
from services.ab_router.catalog import Catalog
from services.ab_router.domain.overlaps import is_in_force, overlap_sentence, overlaps
from services.ab_router.errors import NotReadyError, OverlapError
from services.ab_router.store import Check
from services.ab_router.traffic import Traffic
from shared.errors import FieldError, Unavailable

Versions = Mapping[str, ModelVersion]
"""A model's versions by name, and its champion by the alias `champion`."""


@dataclass(frozen=True, slots=True)
class Starts:
    """Looks at an experiment before its start.

    Attributes:
        catalog: the registered models.
        traffic: the rows of the last day.
    """

    catalog: Catalog
    traffic: Traffic

    async def versions(self, declared: ExperimentRevision | NewExperiment) -> Versions:
        """The versions of the model of an experiment.

        Raises:
            UnknownModelError: it is not registered.
            Unavailable: it, or a version that is named, is unknown, and the inference service does not answer.
        """
        names = [one.version for one in declared.variants if CHAMPION not in (one.version, one.alias)]
        model = await self.catalog.find(declared.model, names)
        return {**model.versions, CHAMPION: model.champion}

    async def versions_now(self, experiment: ExperimentRevision) -> Versions:
        """As `versions`, with the champion of this moment.

        Raises:
            Unavailable: a variant is the champion, and the inference service does not answer.
        """
        is_read = await self.catalog.reread()
        if not is_read and any(one.alias for one in experiment.variants):
            raise Unavailable("the champion of this moment can't be told, since the inference service does not answer")
        return await self.versions(experiment)

    async def readiness(self, experiment: ExperimentRevision, in_force: Sequence[ExperimentRevision]) -> Readiness:
        """What speaks against a start: the traffic, and the other experiments in force.

        Raises:
            As `versions`.
        """
        findings = self.traffic.findings(experiment, await self.versions(experiment))
        others = overlaps(experiment, in_force)
        rows, since = self.traffic.seen(experiment.model)
        is_ready = not any(finding.blocks for finding in findings) and not any(other.shares_units for other in others)
        return Readiness(is_ready, findings, others, rows, since)

    def check_traffic(self, revision: ExperimentRevision, versions: Versions) -> None:
        """Raise NotReadyError where the traffic speaks against a start."""
        blocking = [finding for finding in self.traffic.findings(revision, versions) if finding.blocks]
        if blocking:
            named = "; ".join(f"{finding.field} {finding.message}" for finding in blocking)
            raise NotReadyError(
                f"experiment {revision.name} is not ready: {named}. An override that says why starts it all the same",
                [FieldError(finding.field, finding.message) for finding in blocking],
            )


def no_overlap(revision: ExperimentRevision) -> Check | None:
    """A check that raises OverlapError where another experiment could take a revision's units; None for a draft."""
    if not is_in_force(revision):
        return None

    def check(current: list[ExperimentRevision]) -> None:
        overlapping = [other for other in overlaps(revision, current) if other.shares_units]
        if overlapping:
            raise OverlapError(
                overlap_sentence(revision, overlapping),
                [FieldError("namespace", f"meets that of experiment {other.experiment}") for other in overlapping],
            )

    return check
