"""Use cases of experiments: declare, change and show them."""

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from contender.contracts.experiments import (
    Evidence,
    ExperimentChange,
    ExperimentRevision,
    NewExperiment,
    Ramp,
    Restart,
)
from services.ab_router import errors
from services.ab_router.catalog import Catalog
from services.ab_router.champions import promote, promoted
from services.ab_router.changes import Make, check_seen
from services.ab_router.domain import experiments as life
from services.ab_router.domain import promotion, revising
from services.ab_router.domain.placement_faults import word_faults
from services.ab_router.handlers.experiment_reads import ExperimentReads
from services.ab_router.revisions import Revisions
from services.ab_router.starts import NoTraffic, Starts, Traffic, no_overlap
from services.ab_router.store import ExperimentStore
from shared.clock import Clock
from shared.errors import InvalidField
from shared.journal import Journal
from shared.logs import logger

_LOG = logger(__name__)
_NUMBERED = re.compile(r"(.*)-([1-9][0-9]{0,2})")
_BASE_CHARACTERS = 95
_NUMBERS = 1_000


class Experiments(ExperimentReads):
    """Experiments as the store has them; predictions read them in memory.

    Every change is a new revision, which also goes to the topic `experiments`. Of changes at the same time one holds,
    and whoever made another learns which revision is the newest.

    Args:
        store: where revisions are kept.
        journal: by which they go to the topic.
        catalog: the registered models.
        clock: the time of changes.
        traffic: what the last day's rows say of an experiment before its start.
        path: file for the last good copy, by which a router starts while the database is away; None: there is none.
    """

    def __init__(
        self,
        store: ExperimentStore,
        journal: Journal,
        catalog: Catalog,
        clock: Clock,
        *,
        traffic: Traffic | None = None,
        path: Path | None = None,
    ) -> None:
        super().__init__(Revisions(store, journal, clock, path), Starts(catalog, traffic or NoTraffic()))
        self._catalog = catalog
        self._clock = clock
        self._was_sent = False

    async def open(self) -> None:
        """Read the store, or the copy on disk where it does not answer: then `refresh` goes on trying."""
        self._revisions.open_copy()
        try:
            await self.refresh()
        except errors.ExperimentStoreError as error:
            cause = repr(error.__cause__)
            _LOG.warning("experiments are as they were at the last reading", known=self.is_known, cause=cause)

    async def refresh(self) -> None:
        """Read the store, which another router may have changed, and send the revisions that wait to be sent.

        The first time all newest revisions are sent: a crash may have come between the store and the journal. Where a
        model has another champion than its experiments note, an epoch of them begins, whichever router sees it first.
        """
        async with self._changes.turn():
            await self._revisions.send(everything=not self._was_sent)
            self._was_sent = True
        # This router may have read the models before the champion that a revision notes: it reads them again first.
        if promoted(self._catalog, self._revisions) and await self._catalog.reread():
            await self._open_epochs()

    async def _open_epochs(self) -> None:
        async with self._changes.turn():
            for experiment, champion in promoted(self._catalog, self._revisions):
                await self._revisions.add(life.with_champion(experiment, champion, self._clock.now()))

    async def create(self, new: NewExperiment, *, restart_of: str = "") -> ExperimentRevision:
        """Keep a draft.

        Raises:
            UnknownModelError: its model is not registered.
            Unavailable: one of its versions is unknown, and the inference service does not answer.
            InvalidField: a field is out of range, or names something unknown.
            ExperimentExistsError: an experiment has that name.
            ExperimentStoreError: the database does not answer.
        """
        versions = await self._starts.versions(new)
        revision = life.draft(new, versions, seed=secrets.token_hex(8), now=self._clock.now(), restart_of=restart_of)
        async with self._changes.turn():
            if not await self._revisions.add(revision):
                raise errors.ExperimentExistsError(
                    f"there is an experiment {new.name} already; an experiment's name is final"
                )
        return revision

    async def revise(self, name: str, new: NewExperiment) -> ExperimentRevision:
        """Replace a draft, or of a started experiment whatever is not fixed.

        Raises:
            DesignFixedError: it has started, and fields differ that are fixed since.
            OverlapError: it could take the units of another experiment from now on.
            As `create` and `start`.
        """
        if new.name != name:
            raise InvalidField.at("name", f"is not {name}, the experiment of the path: an experiment's name is final")
        await self._known(name)
        versions = await self._starts.versions(new)

        def revised(experiment: ExperimentRevision) -> ExperimentRevision:
            return revising.revised(experiment, new, versions, self._clock.now())

        return await self._change(name, ExperimentChange(revision=new.revision), revised, check_overlaps=True)

    async def start(self, name: str, change: ExperimentChange = life.UNSAID) -> ExperimentRevision:
        """Let a draft run, or a paused experiment go on.

        Raises:
            UnknownExperimentError: no experiment has that name.
            ExperimentStateError: it is neither a draft nor paused.
            ExperimentChangedError: it has a newer revision than the one that the change was made for.
            OverlapError: another experiment could take the same units.
            NotReadyError: its traffic does not suit it, and there is no override.
            UnknownModelError, InvalidField: the model, or a version of it, is not there any more.
            Unavailable: the champion is to be resolved, and the inference service does not answer.
            ExperimentStoreError: the database does not answer.
        """
        experiment = await self._known(name)
        versions = None
        if experiment.status == "draft":
            check_seen(experiment, change.revision)
            versions = await self._starts.versions_now(experiment)
            if not change.override:
                await self._starts.check_traffic(experiment, versions)
            change = replace(change, revision=experiment.revision)  # the one that was looked at
        return await self._change(
            name,
            change,
            lambda newest: life.started(newest, self._clock.now(), change, versions),
            check_overlaps=True,
        )

    async def pause(self, name: str, change: ExperimentChange = life.UNSAID) -> ExperimentRevision:
        """Let the champion answer until the experiment is started again.

        Raises:
            As `stop`, if it is not running or decided.
        """
        return await self._change(name, change, lambda newest: life.paused(newest, self._clock.now(), change))

    async def ramp(self, name: str, ramp: Ramp) -> ExperimentRevision:
        """Change weights or coverage by hand; an epoch begins.

        Raises:
            InvalidField: the hash can't split the units so, or a variant is missing or unknown.
            As `stop`, if it is not in force or follows a schedule.
        """
        change = ExperimentChange(ramp.reason, ramp.changed_by, ramp.revision)

        def ramped(newest: ExperimentRevision) -> ExperimentRevision:
            if newest.canary or newest.bandit:
                way = "canary" if newest.canary else "bandit"
                raise errors.ExperimentStateError(f"experiment {name} is ramped by its {way}: pause or stop it instead")
            return life.ramped(newest, ramp.weights, ramp.coverage, self._clock.now(), change)

        return await self._change(name, change, ramped)

    async def reallocate(
        self,
        name: str,
        weights: Mapping[str, float] | None,
        coverage: float | None,
        step: int | None,
        reason: str,
        *,
        revision: int | None = None,
    ) -> ExperimentRevision:
        """Change the allocation as a schedule or a bandit says; the same allocation is no change.

        Args:
            name: the experiment's.
            weights: by the variant's name; None: as they are.
            coverage: the share of the units that take part; None: as it is.
            step: of the canary's schedule; None where there is none.
            reason: what the allocation follows from.
            revision: the one that it follows from; a newer one refuses it. None: the newest.

        Raises:
            ExperimentStateError: it does not run: paused and decided ones keep their allocation.
            As `ramp`.
        """
        change = ExperimentChange(reason, life.ROUTER, revision)

        def reallocated(newest: ExperimentRevision) -> ExperimentRevision:
            if newest.status != "running":
                raise life.state_error(newest, "keeps its allocation: only one that runs is ramped by itself")
            return life.ramped(newest, weights, coverage, self._clock.now(), change, step=step)

        return await self._change(name, change, reallocated)

    async def decide(self, name: str, evidence: Evidence) -> ExperimentRevision:
        """Keep a challenger's verdict, whoever else changes the experiment; a known or older one is no change.

        Raises:
            InvalidField: the verdict is about something else than one of its challengers.
            As `stop`.
        """
        async with self._changes.turn():
            return await self._changes.insist(name, lambda newest: life.decided(newest, evidence, self._clock.now()))

    async def stop(
        self, name: str, change: ExperimentChange = life.UNSAID, evidence: Evidence | None = None
    ) -> ExperimentRevision:
        """End an experiment; from then on the model's champion answers.

        Raises:
            UnknownExperimentError: no experiment has that name.
            ExperimentStateError: it is not in force.
            ExperimentChangedError: it has a newer revision than the one that the change was made for.
            ExperimentStoreError: the database does not answer.
        """
        return await self._change(
            name, change, lambda newest: life.stopped(newest, self._clock.now(), change, evidence)
        )

    async def stop_all(self, model: str, change: ExperimentChange = life.UNSAID) -> list[ExperimentRevision]:
        """Stop all experiments on a model, whoever else changes them; none is no error.

        Raises:
            ExperimentStoreError: the database does not answer.
        """
        _check_words(change)

        def stopped(newest: ExperimentRevision) -> ExperimentRevision:
            if newest.status == "stopped":  # by another router or its worker, meanwhile: the others are still to stop
                return newest
            return life.stopped(newest, self._clock.now(), change)

        async with self._changes.turn():
            names = [experiment.name for experiment in self.in_force(model)]
            return [await self._changes.insist(name, stopped) for name in names]

    async def restart(self, name: str, restart: Restart) -> ExperimentRevision:
        """Keep a draft with the declaration of a started experiment, a seed of its own, and another name.

        Weights and coverage are those of the declaration, and aliases are resolved anew.

        Raises:
            ExperimentStateError: it has not started.
            As `create`.
        """
        _check_words(restart)
        revisions = await self._history(name)
        newest = revisions[-1]
        declared = next((kept for kept in reversed(revisions) if kept.status == "draft"), revisions[0])
        if newest.status == "draft":
            raise errors.ExperimentStateError(f"experiment {name} is a draft: start it, or replace it")
        new = replace(
            life.declaration_of(newest),
            name=restart.name if restart.name is not None else self._free_name(name),
            variants=declared.variants,
            coverage=declared.coverage,
            label_range=declared.label_range,
            reason=restart.reason,
            changed_by=restart.changed_by,
        )
        return await self.create(new, restart_of=name)

    async def promote(self, name: str, change: ExperimentChange = life.UNSAID, variant: str = "") -> ExperimentRevision:
        """Make the version of the better challenger the champion, then stop the experiment.

        Where the stop fails, the same call again only stops it.

        Args:
            name: the experiment's.
            change: who promotes it and why; its override stands in for a verdict.
            variant: the challenger; empty: the one that a verdict names as better.

        Raises:
            NotDecidedError: no verdict names it as better, and there is no override.
            Unavailable: the inference service does not answer.
            As `stop`.
        """
        _check_words(change)
        async with self._changes.turn():
            experiment = self.find(name)
            check_seen(experiment, change.revision)
            better = promotion.better_challenger(experiment, variant, change.override)
            evidence = promotion.better_evidence(experiment, better.name)
        if not change.reason:
            change = replace(change, reason=f"variant {better.name} is promoted")
        await promote(self._catalog, experiment.model, promotion.promotion_of(better, change, evidence, name))

        def stopped(newest: ExperimentRevision) -> ExperimentRevision:
            if newest.status == "stopped":  # by somebody else, meanwhile
                return newest
            return life.stopped(newest, self._clock.now(), change, evidence, better.version)

        async with self._changes.turn():
            return await self._changes.insist(name, stopped)

    async def _change(
        self, name: str, change: ExperimentChange, make: Make, *, check_overlaps: bool = False
    ) -> ExperimentRevision:
        _check_words(change)
        return await self._changes.change(name, change.revision, make, no_overlap if check_overlaps else None)

    def _free_name(self, name: str) -> str:
        """The name with the next free number: e, e-2, e-3."""
        numbered = _NUMBERED.fullmatch(name)
        base, number = (numbered[1], int(numbered[2])) if numbered else (name, 1)
        names = (f"{base[:_BASE_CHARACTERS]}-{free}" for free in range(number + 1, number + _NUMBERS))
        return next((free for free in names if self._revisions.find(free) is None), "")


def _check_words(change: ExperimentChange | Restart) -> None:
    faults = list(word_faults(change))
    if faults:
        raise InvalidField("; ".join(f"{fault.field} {fault.message}" for fault in faults), faults)
