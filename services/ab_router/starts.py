"""What must hold before an experiment takes units: its versions, the traffic, and room beside other experiments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from contender.contracts.experiments import CHAMPION, ExperimentRevision, Finding, NewExperiment, Readiness
from contender.contracts.inference_service import ModelVersion
from services.ab_router.catalog import Catalog
from services.ab_router.domain.overlaps import is_in_force, overlap_sentence, overlaps
from services.ab_router.errors import NotReadyError, OverlapError
from services.ab_router.store import Check
from shared.errors import FieldError, Unavailable

Versions = Mapping[str, ModelVersion]
"""A model's versions by name, and its champion by the alias `champion`."""


class Look(Protocol):
    """What the rows of a model's last day say of an experiment; `since` is in seconds since the Unix epoch."""

    @property
    def findings(self) -> list[Finding]:
        """What speaks against a start."""
        ...

    @property
    def rows(self) -> int:
        """How many rows the findings rest on."""
        ...

    @property
    def since(self) -> float | None:
        """When the first of them came; None where there are none."""
        ...


class Traffic(Protocol):
    """The rows that callers sent in the last day."""

    async def look(self, revision: ExperimentRevision, versions: Versions) -> Look:
        """What they say of an experiment; `versions` are the model's."""
        ...


@dataclass(frozen=True, slots=True)
class NoLook:
    """Nothing, where nobody counts rows."""

    findings: list[Finding] = field(default_factory=list)
    rows: int = 0
    since: float | None = None


class NoTraffic:
    """Traffic that nobody counts: it speaks against nothing."""

    async def look(self, revision: ExperimentRevision, versions: Versions) -> Look:  # noqa: ARG002
        """Nothing."""
        return NoLook()


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
        names = [arm.version for arm in declared.variants if CHAMPION not in (arm.version, arm.alias)]
        model = await self.catalog.find(declared.model, names)
        return {**model.versions, CHAMPION: model.champion}

    async def versions_now(self, experiment: ExperimentRevision) -> Versions:
        """As `versions`, with the champion of this moment.

        Raises:
            Unavailable: a variant is the champion, and the inference service does not answer.
        """
        is_read = await self.catalog.reread()
        if not is_read and any(arm.alias for arm in experiment.variants):
            raise Unavailable("the champion of this moment can't be told, since the inference service does not answer")
        return await self.versions(experiment)

    async def readiness(self, experiment: ExperimentRevision, in_force: Sequence[ExperimentRevision]) -> Readiness:
        """What speaks against a start: the traffic, and the other experiments in force.

        Raises:
            As `versions`.
        """
        look = await self.traffic.look(experiment, await self.versions(experiment))
        others = overlaps(experiment, in_force)
        is_ready = not _blocking(look) and not any(other.shares_units for other in others)
        return Readiness(is_ready, look.findings, others, look.rows, look.since)

    async def check_traffic(self, experiment: ExperimentRevision, versions: Versions) -> None:
        """Raise NotReadyError where the traffic speaks against a start."""
        blocking = _blocking(await self.traffic.look(experiment, versions))
        if blocking:
            named = "; ".join(f"{finding.field} {finding.message}" for finding in blocking)
            raise NotReadyError(
                f"experiment {experiment.name} is not ready: {named}. An override that says why starts it all the same",
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


def _blocking(look: Look) -> list[Finding]:
    return [finding for finding in look.findings if finding.blocks]
