"""The definitions that a process works by: the module's newest ones, and every version that is registered.

They change while the process runs: another one may apply changed definitions, or begin a rebuild.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from contender.features.catalogue import Catalogue
from contender.features.definitions import EventSource, FeatureView
from contender.features.documents import view_of
from contender.features.errors import DefinitionError, TrainingSetError
from contender.features.on_demand import OnDemandView
from services.feature_service.domain.rings import HISTORY, Ring, Rings
from services.feature_service.history import HistoryCutover, cutover_of
from services.feature_service.store.protocol import FeatureStore, StoreUnavailableError
from services.feature_service.store.registry import Registered, Registry
from shared.clock import Clock, SystemClock
from shared.logs import logger

_TRIES = 5


class UnknownVersionError(Exception):
    """There is no such version of a view."""


class VersionInUseError(Exception):
    """A version can't be retired."""


@dataclass(frozen=True)
class DefinitionsSnapshot:
    """Definitions at one moment. `filled_rings` has per ring's name the partitions that it is fed from; None: all."""

    catalogue: Catalogue
    rings: Rings
    registered: Registered
    filled_rings: Mapping[str, frozenset[int]] | None

    @classmethod
    def of(
        cls, catalogue: Catalogue, registered: Registered, filled: Mapping[str, frozenset[int]] | None
    ) -> "DefinitionsSnapshot":
        """With the rings that follow."""
        views = {label: view for label, view in catalogue.kept.items() if isinstance(view, FeatureView)}
        return cls(catalogue, _rings(views, registered, registered.generation), registered, filled)

    def dead(self) -> list[Ring]:
        """Rings that nobody feeds any more: those of retired versions only, and those from before a rebuild."""
        views = {one.label: view_of(one.document) for one in self.registered.versions}
        tiled = {label: view for label, view in views.items() if isinstance(view, FeatureView)}
        planned = {ring.name for ring in self.rings.all()}
        found = [
            ring
            for generation in range(self.registered.generation + 1)
            for ring in _rings(tiled, self.registered, generation).all()
        ]
        return [ring for ring in found if ring.name not in planned]

    def is_complete(self, ring: Ring, partitions: int) -> bool:
        """Whether a ring holds what all partitions had and have, and what history had."""
        wanted = partitions + ring.has_history
        return self.filled_rings is None or len(self.filled_rings.get(ring.name, frozenset())) >= wanted


@dataclass
class Definitions:
    """Holds the current definitions and reads them again.

    Args:
        module: the dotted name, or the path, of the definitions' module.
        registry: which versions there are.
        store: which rings are filled.
        partitions: of topic entity-events.
        clock: tells which histories reach into the future.
        future_s: how far ahead of it an event may be.
    """

    module: str
    registry: Registry
    store: FeatureStore
    partitions: int
    clock: Clock = field(default_factory=SystemClock)
    future_s: float = 300.0
    fault: str = ""
    _current: DefinitionsSnapshot | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def current(self) -> DefinitionsSnapshot:
        """The definitions as last read."""
        if self._current is None:
            raise RuntimeError("definitions are read before anything asks for them")
        return self._current

    @property
    def is_complete(self) -> bool:
        """Whether every ring holds what all partitions had and have."""
        return all(self.current.is_complete(ring, self.partitions) for ring in self.current.rings.all())

    async def open(self) -> None:
        """Read the module and register its versions.

        Raises:
            DefinitionError: the module's definitions can't be.
        """
        await self.apply()
        await self.refresh()

    async def apply(self) -> list[str]:
        """Read the module again and register what has changed; the labels of new versions.

        Where a source has a history, new versions take from it what happened up to its last event.

        Raises:
            DefinitionError: the module's definitions can't be, or a history can't be read; nothing has changed.
        """
        async with self._lock:
            for _ in range(_TRIES):
                registered = await self.registry.load()
                catalogue = await asyncio.to_thread(self._load, registered)
                known = {one.label: one for one in registered.versions}
                changed = [one for one in catalogue.versions if known.get(one.label) != one]
                added = [one for one in changed if one.label not in known]
                seams = await asyncio.to_thread(_seams, [one.label for one in added], catalogue, self._latest_s)
                if not changed or await self.registry.keep(changed, seams):
                    await self._take(catalogue, await self.registry.load() if changed else registered)
                    return [one.label for one in added]
        raise DefinitionError("other processes register definitions all the time; try again")

    async def rebuild(self) -> int:
        """Begin a new generation of rings, filled from histories as they are now and from the topic; its number.

        Raises:
            DefinitionError: a history can't be read; nothing has changed.
        """
        async with self._lock:
            labels = [one.label for one in self.current.catalogue.versions]
            seams = await asyncio.to_thread(_seams, labels, self.current.catalogue, self._latest_s)
            generation = await self.registry.rebuild(seams)
        await self.refresh()
        return generation

    @property
    def _latest_s(self) -> float:
        return self.clock.now() + self.future_s

    async def retire(self, labels: Sequence[str]) -> None:
        """Serve and feed versions no longer, for good; one that is retired already stays so.

        Raises:
            UnknownVersionError: one of them is not there; nothing has changed.
            VersionInUseError: one of them is what the module says, or another kept version is computed from it;
                nothing has changed.
        """
        async with self._lock:
            registered = await self.registry.load()
            there = {one.label for one in registered.versions}
            if unknown := [label for label in labels if label not in there]:
                raise UnknownVersionError(f"there is no version {unknown[0]!r}; there are {', '.join(sorted(there))}")
            catalogue = self.current.catalogue.again(registered.versions)
            for label in labels:
                _check_unused(catalogue, label, labels)
            await self.registry.retire(labels)
            registered = await self.registry.load()
            await self._take(catalogue.again(registered.versions), registered)

    async def refresh(self) -> None:
        """Take up what other processes have changed. What can't be read stays as it was, and `fault` says why.

        Only what is registered is taken up: a module that was changed and not applied waits for it. Where the store
        has lost everything a new generation of rings begins, which the workers fill.
        """
        async with self._lock:
            try:
                registered = await self._in_this_store(await self.registry.load())
                if registered.revision != self.current.registered.revision:
                    await self._take(await asyncio.to_thread(self._registered_only, registered), registered)
                else:
                    await self._take(self.current.catalogue, registered)
            except (DefinitionError, StoreUnavailableError) as error:
                if str(error) != self.fault:
                    logger(__name__).warning("definitions stay as they were", error=str(error))
                self.fault = str(error)
            else:
                self.fault = ""

    async def _in_this_store(self, registered: Registered) -> Registered:
        """What is registered, once the store is known to be the one that the rings were filled in."""
        epoch = await self.store.epoch(secrets.token_hex(8))
        if epoch == registered.epoch:
            return registered
        seams = registered.seams
        if registered.epoch:
            logger(__name__).warning("the store has lost all features: they are filled anew, from files and topic")
            catalogue = self.current.catalogue
            with suppress(DefinitionError):  # the workers tell of files that are no longer what they were
                labels = [one.label for one in catalogue.versions]
                seams = await asyncio.to_thread(_seams, labels, catalogue, self._latest_s)
        await self.registry.move(registered.epoch, epoch, seams)
        return await self.registry.load()

    async def _take(self, catalogue: Catalogue, registered: Registered) -> None:
        filled: dict[str, frozenset[int]] = {}
        places = [HISTORY, *range(self.partitions)]
        for partition, names in zip(places, await self.store.filled_rings(places), strict=True):
            for name in names:
                filled[name] = filled.get(name, frozenset()) | {partition}
        if self._current is None or catalogue is not self._current.catalogue or registered != self._current.registered:
            self._current = DefinitionsSnapshot.of(catalogue, registered, filled)
        elif filled != self._current.filled_rings:
            self._current = replace(self._current, filled_rings=filled)

    def _load(self, registered: Registered) -> Catalogue:
        return Catalogue.load(self.module, registered.versions)

    def _registered_only(self, registered: Registered) -> Catalogue:
        """The module's definitions as they are now, or where those are not all registered, as they were."""
        labels = {one.label for one in registered.versions}
        for read in (self._load, lambda registered: self.current.catalogue.again(registered.versions)):
            try:
                catalogue = read(registered)
            except DefinitionError as error:
                logger(__name__).warning("changed definitions can't be read", error=str(error))
                continue
            if all(one.label in labels for one in catalogue.versions):
                return catalogue
        raise DefinitionError("the definitions of this process are no longer registered: apply them, or start it again")


def _rings(views: Mapping[str, FeatureView], registered: Registered, generation: int) -> Rings:
    born = {
        one.label: sum(other.name == one.name and 0 < other.retired_after < one.number for other in registered.versions)
        for one in registered.versions
    }
    seams = {label: (seam.until_s, seam.sha256) for label, seam in registered.seams.items()}
    return Rings.of(views, seams, generation, born)


def _check_unused(catalogue: Catalogue, label: str, retiring: Sequence[str]) -> None:
    name = label.partition("@")[0]
    if name in {*catalogue.views, *catalogue.on_demand} and catalogue.newest(name) == label:
        raise VersionInUseError(f"{label} is what the definitions say today; change them, or take the view out of them")
    for other, view in catalogue.kept.items():
        inputs = view.inputs if isinstance(view, OnDemandView) else ()
        if other not in retiring and any(reference.partition(":")[0] == label for reference in inputs):
            raise VersionInUseError(f"{other} is computed from {label}; retire it, too")


def _seams(labels: Sequence[str], catalogue: Catalogue, latest_s: float) -> dict[str, HistoryCutover]:
    """Where the histories of versions of views end now."""
    found: dict[str, HistoryCutover] = {}
    by_source: list[tuple[EventSource, HistoryCutover | None]] = []
    for label in labels:
        view = catalogue.kept[label]
        if isinstance(view, FeatureView):
            source = history_of(catalogue, view)
            try:
                seam = next((seam for one, seam in by_source if one == source), None) or cutover_of(source, latest_s)
            except TrainingSetError as error:
                raise DefinitionError(f"view {label!r}: {error}", source.place) from error
            by_source.append((source, seam))
            if seam is not None:
                found[label] = seam
    return found


def history_of(catalogue: Catalogue, view: FeatureView) -> EventSource:
    """The source that a version's history is read by: its own, or today's where that has all columns: files move."""
    today = catalogue.sources.get(view.source.name)
    if today is not None and today.history and view.source.schema.items() <= today.schema.items():
        return today
    return view.source


def definitions_for_tests(catalogue: Catalogue, store: FeatureStore, registry: Registry) -> Definitions:
    """Definitions that are fed from the start: for tests, and where no worker fills anything."""
    definitions = Definitions("", registry, store, 1)
    definitions._current = DefinitionsSnapshot.of(catalogue, Registered(list(catalogue.versions)), None)  # noqa: SLF001
    return definitions
