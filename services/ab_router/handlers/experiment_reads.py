"""Use cases that show experiments: as they stand, as they stood, and whether one may start."""

from math import isfinite

from contender.contracts.experiments import ExperimentRevision, HistoryEntry, Readiness, RevisionQuery
from services.ab_router.changes import Changes, newest
from services.ab_router.domain.history import at_time, history_of
from services.ab_router.errors import UnknownExperimentError
from services.ab_router.revisions import Revisions
from services.ab_router.starts import Starts
from shared.clock import utc
from shared.errors import InvalidField, shortened


class ExperimentReads:
    """Experiments as the store has them; those that stand now are in memory.

    Args:
        revisions: of all experiments.
        starts: looks at an experiment before its start.
    """

    def __init__(self, revisions: Revisions, starts: Starts) -> None:
        self._revisions = revisions
        self._starts = starts
        self._changes = Changes(revisions)

    @property
    def is_known(self) -> bool:
        """Whether the experiments were ever read, by this router or one that left its copy on disk."""
        return self._revisions.is_known

    @property
    def is_stale(self) -> bool:
        """Whether the last reading of the database failed."""
        return self._revisions.is_stale

    def in_force(self, model: str) -> tuple[ExperimentRevision, ...]:
        """The running, paused and decided experiments on a model, the oldest start first."""
        return self._revisions.in_force(model)

    def all(self) -> list[ExperimentRevision]:
        """Every experiment, oldest first."""
        return self._revisions.all()

    def find(self, name: str) -> ExperimentRevision:
        """The newest revision of one experiment.

        Raises:
            UnknownExperimentError: no experiment has that name.
        """
        return newest(self._revisions, name)

    async def at(self, name: str, query: RevisionQuery) -> ExperimentRevision:
        """A revision of one experiment by its number, or the one in force at a time; by default the newest.

        Raises:
            UnknownExperimentError: no experiment has that name, or it has no such revision.
            InvalidField: both are asked for, or the time is none.
            ExperimentStoreError: the database does not answer.
        """
        if query.revision is None and query.as_of is None:
            return self._revisions.find(name) or await self._known(name)
        if query.as_of is not None and (query.revision is not None or not isfinite(query.as_of)):
            raise InvalidField.at("query.as_of", "must be a Unix time in seconds, without a revision beside it")
        revisions = await self._history(name)
        if query.as_of is not None:
            revision = at_time(revisions, query.as_of)
            missing = (
                f"experiment {name} was not there at {utc(query.as_of)}: it begins at {utc(revisions[0].changed_at)}"
            )
        else:
            revision = next((kept for kept in revisions if kept.revision == query.revision), None)
            missing = f"experiment {name} has no revision {query.revision}: the newest is {revisions[-1].revision}"
        if revision is None:
            raise UnknownExperimentError(missing)
        return revision

    async def history(self, name: str) -> list[HistoryEntry]:
        """All revisions of an experiment, oldest first, each with its differences.

        Raises:
            UnknownExperimentError: no experiment has that name.
            ExperimentStoreError: the database does not answer.
        """
        return history_of(await self._history(name))

    async def readiness(self, name: str) -> Readiness:
        """What speaks against a start: the traffic, and other experiments on the model.

        Raises:
            UnknownExperimentError: no experiment has that name.
            UnknownModelError, Unavailable: its model, or a version of it, is not known.
            ExperimentStoreError: the database does not answer.
        """
        experiment = await self._known(name)
        return await self._starts.readiness(experiment, self.in_force(experiment.model))

    async def _history(self, name: str) -> list[ExperimentRevision]:
        revisions = await self._revisions.history(name)
        if not revisions:
            raise UnknownExperimentError(f"there is no experiment {shortened(name)}")
        return revisions

    async def _known(self, name: str) -> ExperimentRevision:
        """An experiment that may have been created by another router a moment ago."""
        async with self._changes.turn():
            return self.find(name)
