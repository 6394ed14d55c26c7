"""The newest revisions of all experiments in memory: read from the store, sent to the topic, with a copy on disk."""

import os
from pathlib import Path

import msgspec

from contender.contracts.experiments import ExperimentRevision
from services.ab_router.domain.overlaps import is_in_force
from services.ab_router.errors import ExperimentStoreError
from services.ab_router.store import Check, ExperimentStore
from shared.clock import Clock
from shared.ids import new_frame_id
from shared.journal import Journal, JournalFull, JournalRecord
from shared.logs import logger
from shared.topics import EXPERIMENTS, cloud_event_headers

_LOG = logger(__name__)


class Revisions:
    """Every experiment as it stands.

    The store decides: a revision is valid even if the journal is full, and is then sent with a later one.

    Args:
        store: where revisions are kept.
        journal: by which they go to the topic `experiments`.
        clock: the time in the ids of their events.
        path: file for the last good copy; None: there is none.
    """

    def __init__(self, store: ExperimentStore, journal: Journal, clock: Clock, path: Path | None = None) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._path = path
        self._list: list[ExperimentRevision] = []
        self._by_name: dict[str, ExperimentRevision] = {}
        self._in_force: dict[str, tuple[ExperimentRevision, ...]] = {}
        self._unsent: dict[str, ExperimentRevision] = {}
        self._own: set[str] = set()
        """Experiments of which this router has sent a revision, or has kept one without an answer that says so."""
        self.is_known = False
        """Whether the store was ever read, in this process or by one that left its copy."""
        self.is_stale = False
        """Whether the last reading of the store failed, or the copy stands in for the first one."""

    def open_copy(self) -> None:
        """Take the experiments of the copy on disk, if there is one, until the store is read."""
        if self._path is None:
            return
        try:
            copy = msgspec.json.decode(self._path.read_bytes(), type=list[ExperimentRevision])
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            _LOG.warning("the copy of the experiments can't be read and will be written again", error=str(error))
            return
        self.is_known = self.is_stale = True
        self._index(copy)

    def in_force(self, model: str) -> tuple[ExperimentRevision, ...]:
        """The running, paused and decided experiments on a model, the oldest start first."""
        return self._in_force.get(model, ())

    def all(self) -> list[ExperimentRevision]:
        """The newest revision of every experiment, oldest experiment first."""
        return list(self._list)

    def find(self, name: str) -> ExperimentRevision | None:
        """The newest revision of one experiment."""
        return self._by_name.get(name)

    async def load(self) -> None:
        """Read the store, which another router may have changed.

        Raises:
            ExperimentStoreError: the database does not answer.
        """
        try:
            current = await self._store.current()
        except ExperimentStoreError:
            self.is_stale = True
            raise
        self.is_stale = False
        if self.is_known and current == self._list:
            return
        self.is_known = True
        # Records of two routers reach the topic in any order, and it keeps the last one: each router that has sent an
        # older revision sends the newest after it.
        self._unsent |= {
            revision.name: revision
            for revision in current
            if revision.name in self._own and revision != self._by_name.get(revision.name)
        }
        self._index(current)
        self._copy()

    async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
        """Keep a revision and send it; false where the experiment has a revision of that number.

        Raises:
            ExperimentStoreError: the database does not answer; the revision may be kept all the same.
        """
        self._own.add(revision.name)
        if not await self._store.add(revision, check):
            return False
        self._index(list({**self._by_name, revision.name: revision}.values()))
        self._copy()
        self._unsent[revision.name] = revision
        await self.send()
        return True

    async def history(self, name: str) -> list[ExperimentRevision]:
        """All revisions of an experiment, oldest first."""
        return await self._store.history(name)

    async def send(self, *, everything: bool = False) -> None:
        """Send the revisions that wait; or every newest one, since a crash may have lost some before the journal."""
        if everything:
            self._unsent = dict(self._by_name)
            self._own |= self._by_name.keys()
        if not self._unsent:
            return
        try:
            self._journal.append_all([self._record(revision) for revision in self._unsent.values()])
            await self._journal.flush()
        except JournalFull as error:
            _LOG.warning("revisions of experiments wait to be sent", error=str(error))
        else:
            self._unsent.clear()

    def _record(self, revision: ExperimentRevision) -> JournalRecord:
        headers = cloud_event_headers(EXPERIMENTS, new_frame_id(self._clock.now()))
        return JournalRecord(EXPERIMENTS.name, 0, revision.name.encode(), headers, EXPERIMENTS.encode(revision))

    def _index(self, current: list[ExperimentRevision]) -> None:
        self._list = current
        self._by_name = {revision.name: revision for revision in current}
        by_model: dict[str, list[ExperimentRevision]] = {}
        for revision in current:
            if is_in_force(revision):
                by_model.setdefault(revision.model, []).append(revision)
        self._in_force = {
            model: tuple(sorted(revisions, key=lambda revision: revision.started_at or 0.0))
            for model, revisions in by_model.items()
        }

    def _copy(self) -> None:
        """Write the copy: a router that starts while the database is away goes on from it."""
        if self._path is None:
            return
        new = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode(self._list))
            new.replace(self._path)
        except OSError as error:
            _LOG.warning("the copy of the experiments can't be written", error=str(error))
