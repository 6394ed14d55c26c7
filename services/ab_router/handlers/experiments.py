"""Use cases of experiments: create, start, stop, show."""

import asyncio
import secrets

from contender.contracts.experiments import ExperimentRevision, NewExperiment
from services.ab_router.catalog import Catalog
from services.ab_router.domain.experiments import draft, started, stopped
from services.ab_router.errors import ExperimentExistsError, ExperimentStateError, UnknownExperimentError
from services.ab_router.store import ExperimentStore
from shared.clock import Clock
from shared.ids import new_frame_id
from shared.journal import Journal, JournalFull, JournalRecord
from shared.logs import logger
from shared.topics import EXPERIMENTS, cloud_event_headers

_LOG = logger(__name__)


class Experiments:
    """Experiments as the store has them; predictions read them in memory.

    Every change is a new revision, which also goes to the topic `experiments`. The store decides: a revision is valid
    even if the journal is full, and is then sent with a later refresh.
    """

    def __init__(self, store: ExperimentStore, journal: Journal, catalog: Catalog, clock: Clock) -> None:
        self._store = store
        self._journal = journal
        self._catalog = catalog
        self._clock = clock
        self._current: dict[str, ExperimentRevision] = {}
        self._running: dict[str, ExperimentRevision] = {}
        self._unsent: dict[str, ExperimentRevision] = {}
        self._changing = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the store, which another router may have changed, and send the revisions that wait to be sent."""
        async with self._changing:
            await self._load()
            await self._send()

    async def republish(self) -> None:
        """Send every current revision again: a crash may have come between the store and the journal."""
        async with self._changing:
            self._unsent = dict(self._current)
            await self._send()

    def running(self, model: str) -> ExperimentRevision | None:
        """The experiment that runs on a model."""
        return self._running.get(model)

    def in_force(self, model: str) -> tuple[ExperimentRevision, ...]:
        """The experiments in force on a model: running, paused and decided ones, the one that started first first."""
        of_model = (each for each in self._current.values() if each.model == model)
        in_force = (each for each in of_model if each.status in {"running", "paused", "decided"})
        return tuple(sorted(in_force, key=lambda experiment: experiment.started_at or 0.0))

    def all(self) -> list[ExperimentRevision]:
        """Every experiment, oldest first."""
        return list(self._current.values())

    def find(self, name: str) -> ExperimentRevision:
        """The current revision of one experiment.

        Raises:
            UnknownExperimentError: no experiment has that name.
        """
        if name not in self._current:
            raise UnknownExperimentError(f"there is no experiment {name}")
        return self._current[name]

    async def create(self, new: NewExperiment) -> ExperimentRevision:
        """Keep a draft.

        Raises:
            UnknownModelError: its model is not registered.
            Unavailable: one of its versions is unknown, and the inference service does not answer.
            InvalidField: a field is out of range, or names something unknown.
            ExperimentExistsError: an experiment has that name.
        """
        model = await self._catalog.find(new.model, [variant.version for variant in new.variants])
        async with self._changing:
            revision = draft(new, model.versions, seed=secrets.token_hex(8), now=self._clock.now())
            if not await self._store.add(revision):
                raise ExperimentExistsError(f"there is an experiment {new.name} already; an experiment's name is final")
            return await self._publish(revision)

    async def start(self, name: str) -> ExperimentRevision:
        """Let a draft run.

        Raises:
            UnknownExperimentError: no experiment has that name.
            ExperimentStateError: it is not a draft, or another experiment runs on the model.
        """
        async with self._changing:
            await self._load()
            experiment = self.find(name)
            revision = started(experiment, self._clock.now())
            other = self._running.get(experiment.model)
            if other is not None:
                raise ExperimentStateError(
                    f"experiment {other.name} runs on model {other.model}, and one runs at a time; stop it by POST "
                    f"/v1/experiments/{other.name}/stop before you start another"
                )
            return await self._change(revision)

    async def stop(self, name: str) -> ExperimentRevision:
        """End a running experiment; from then on the model's champion answers.

        Raises:
            UnknownExperimentError: no experiment has that name.
            ExperimentStateError: it does not run.
        """
        async with self._changing:
            await self._load()
            return await self._change(stopped(self.find(name), self._clock.now()))

    async def _load(self) -> None:
        self._replace({revision.name: revision for revision in await self._store.current()})

    async def _change(self, revision: ExperimentRevision) -> ExperimentRevision:
        if not await self._store.add(revision):
            raise ExperimentStateError(f"experiment {revision.name} was changed at the same time; look at it again")
        return await self._publish(revision)

    async def _publish(self, revision: ExperimentRevision) -> ExperimentRevision:
        self._replace({**self._current, revision.name: revision})
        self._unsent[revision.name] = revision
        await self._send()
        return revision

    async def _send(self) -> None:
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

    def _replace(self, current: dict[str, ExperimentRevision]) -> None:
        self._current = current
        self._running = {revision.model: revision for revision in current.values() if revision.status == "running"}
