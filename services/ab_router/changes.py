"""How an experiment gets its next revision while others change it as well: of changes at the same time one holds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from contender.contracts.experiments import ExperimentRevision
from services.ab_router.errors import ExperimentChangedError, UnknownExperimentError
from services.ab_router.revisions import Revisions
from services.ab_router.store import Check
from shared.errors import FieldError, InvalidField, shortened

_ATTEMPTS = 10
"""How often a change is tried that must hold, such as a stop by the kill switch: each time another one came first."""
Make = Callable[[ExperimentRevision], ExperimentRevision]
"""The next revision of the newest one; the same one where nothing is to change."""


class Changes:
    """Changes of this router, one after another; between routers the store decides, where a revision is unique."""

    def __init__(self, revisions: Revisions) -> None:
        self._revisions = revisions
        self._lock = asyncio.Lock()
        self._made: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The turn of one change: the store has been read, and no other change of this router comes in between.

        Raises:
            ExperimentStoreError: the database does not answer.
        """
        async with self._lock:
            await self._revisions.load()
            yield

    async def change(
        self,
        name: str,
        seen: int | None,
        make: Make,
        check_of: Callable[[ExperimentRevision], Check | None] | None = None,
    ) -> ExperimentRevision:
        """Keep the next revision of an experiment.

        Args:
            name: the experiment's.
            seen: the revision that the change is made for; None: the newest when it is called.
            make: makes the revision; its errors are raised here.
            check_of: the check of the revision that is made: see `ExperimentStore.add`.

        Raises:
            UnknownExperimentError: no experiment has that name.
            ExperimentChangedError: another change came first.
            ExperimentStoreError: the database does not answer.
        """
        made = self._made[name]
        async with self.turn():
            before = newest(self._revisions, name)
            check_seen(before, seen)
            if seen is None and self._made[name] != made:  # while it waited for its turn
                raise changed_error(before)
            revision = make(before)
            if revision is not before:
                if not await self._revisions.add(revision, check_of(revision) if check_of else None):
                    await self._revisions.load()
                    raise changed_error(newest(self._revisions, name))
                self._made[name] += 1
            return revision

    async def insist(self, name: str, make: Make) -> ExperimentRevision:
        """Keep the next revision, whoever else changes the experiment; the caller has its turn.

        Raises:
            ExperimentChangedError: others came first again and again.
            As `change`.
        """
        for _ in range(_ATTEMPTS):
            before = newest(self._revisions, name)
            revision = make(before)
            if revision is before:
                return revision
            if await self._revisions.add(revision):
                self._made[name] += 1
                return revision
            await self._revisions.load()
        raise changed_error(newest(self._revisions, name))


def newest(revisions: Revisions, name: str) -> ExperimentRevision:
    """The newest revision of one experiment.

    Raises:
        UnknownExperimentError: no experiment has that name.
    """
    revision = revisions.find(name)
    if revision is None:
        raise UnknownExperimentError(f"there is no experiment {shortened(name)}")
    return revision


def check_seen(experiment: ExperimentRevision, seen: int | None) -> None:
    """Raise where a change was made for another revision than the newest, which is given."""
    if seen is not None and seen > experiment.revision:
        raise InvalidField.at("revision", f"is {seen}, and the newest is {experiment.revision}")
    if seen is not None and seen != experiment.revision:
        raise changed_error(experiment)


def changed_error(experiment: ExperimentRevision) -> ExperimentChangedError:
    """The refusal of a change that another one came before, which names the newest revision."""
    number, status = experiment.revision, experiment.status
    message = f"the newest is {number}, which is {status}: look at it, and make the change for that one"
    return ExperimentChangedError(
        f"experiment {experiment.name} has a newer revision: {message}", [FieldError("revision", message)]
    )
