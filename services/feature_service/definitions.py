"""The definitions that a process uses: the module's newest ones, and every registered version.

They change while the process runs: another process may apply changed definitions, or begin a rebuild.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from contender.features import Catalogue, DefinitionError, EventSource, FeatureView, TrainingSetError, view_of
from services.feature_service.domain import HISTORY, Ring, Rings
from services.feature_service.errors import UnknownVersionError, VersionInUseError
from services.feature_service.history import HistoryCutover, cutover_of
from services.feature_service.store import FeatureStore, Registry, RegistryState, StoreUnavailableError
from shared.clock import Clock, SystemClock
from shared.logs import logger

_TRIES = 5


@dataclass(frozen=True, eq=False)
class DefinitionsSnapshot:
    """The definitions at one moment.

    `filled_rings` has, by a ring's name, the partitions that it is filled from; None: every ring is filled.
    """

    catalogue: Catalogue
    rings: Rings
    registered: RegistryState
    filled_rings: Mapping[str, frozenset[int]] | None

    @classmethod
    def of(
        cls, catalogue: Catalogue, registered: RegistryState, filled: Mapping[str, frozenset[int]] | None
    ) -> "DefinitionsSnapshot":
        """A snapshot, with the rings of its views."""
        views = {label: view for label, view in catalogue.kept.items() if isinstance(view, FeatureView)}
        return cls(catalogue, _rings(views, registered, registered.generation), registered, filled)

    def abandoned_rings(self) -> list[Ring]:
        """Rings that nobody feeds any more: those of retired versions only, and those from before a rebuild."""
        views = {version.label: view_of(version.document) for version in self.registered.versions}
        tiled = {label: view for label, view in views.items() if isinstance(view, FeatureView)}
        in_use = {ring.name for ring in self.rings.all()}
        return [
            ring
            for generation in range(self.registered.generation + 1)
            for ring in _rings(tiled, self.registered, generation).all()
            if ring.name not in in_use
        ]

    def is_complete(self, ring: Ring, partitions: int) -> bool:
        """Whether a ring holds the past of every partition and of the history files."""
        wanted = partitions + ring.has_history
        return self.filled_rings is None or len(self.filled_rings.get(ring.name, frozenset())) >= wanted

    def is_filled(self, label: str, partitions: int) -> bool:
        """Whether every ring of a version, `view@number`, is complete."""
        return all(self.is_complete(ring, partitions) for ring in self.rings.of_view(label))


@dataclass
class Definitions:
    """Holds the current definitions and reloads them.

    Args:
        module: the dotted name, or the path, of the definitions' module.
        registry: the registered versions.
        store: knows which rings are filled.
        partitions: of topic entity-events.
        clock: the current time, to refuse histories that reach into the future.
        future_s: how far ahead of the clock an event may be.
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
        """The definitions as last loaded."""
        if self._current is None:
            raise RuntimeError("await open() before the definitions are used")
        return self._current

    @property
    def is_complete(self) -> bool:
        """Whether every ring is complete."""
        return all(self.current.is_complete(ring, self.partitions) for ring in self.current.rings.all())

    async def open(self) -> None:
        """Load the module and register its versions.

        Raises:
            DefinitionError: the definitions are invalid.
        """
        await self.apply()
        await self.refresh()

    async def apply(self) -> list[str]:
        """Load the module again and register what has changed; returns the labels of new versions.

        Where a source has a history, new versions are filled from it up to its last event.

        Raises:
            DefinitionError: the definitions are invalid, or a history can't be read; nothing has changed.
        """
        async with self._lock:
            for _ in range(_TRIES):
                registered = await self.registry.load()
                catalogue = await asyncio.to_thread(self._load, registered)
                known = {version.label: version for version in registered.versions}
                changed = [version for version in catalogue.versions if known.get(version.label) != version]
                added = [version.label for version in changed if version.label not in known]
                cutovers = await asyncio.to_thread(_cutovers, added, catalogue, self._latest_s)
                if not changed or await self.registry.keep(changed, cutovers):
                    await self._adopt(catalogue, await self.registry.load() if changed else registered)
                    return added
        raise DefinitionError("other processes keep registering definitions; try again")

    async def rebuild(self) -> int:
        """Begin a new generation of rings, filled from today's histories and from the topic; return its number.

        Raises:
            DefinitionError: a history can't be read; nothing has changed.
        """
        async with self._lock:
            generation = await self.registry.rebuild(await self._cutovers_now())
        await self.refresh()
        return generation

    async def retire(self, labels: Sequence[str]) -> None:
        """Permanently stop serving and filling versions; ignores retired ones.

        Raises:
            UnknownVersionError: there is no such version; nothing has changed.
            VersionInUseError: the module defines the version, or another one is computed from it; nothing has changed.
        """
        async with self._lock:
            registered = await self.registry.load()
            known = {version.label for version in registered.versions}
            if unknown := [label for label in labels if label not in known]:
                raise UnknownVersionError(f"there is no version {unknown[0]!r}; there are {', '.join(sorted(known))}")
            catalogue = self.current.catalogue.again(registered.versions)
            for label in labels:
                _check_unused(catalogue, label, labels)
            await self.registry.retire(labels)
            registered = await self.registry.load()
            await self._adopt(catalogue.again(registered.versions), registered)

    async def refresh(self) -> None:
        """Adopt the changes of other processes. If that fails, the definitions stay and `fault` says why.

        Ignores a module that was changed and not applied. If the store has lost everything, begins a new generation of
        rings, which the workers fill.
        """
        async with self._lock:
            try:
                registered = await self._in_this_store(await self.registry.load())
                if registered.revision != self.current.registered.revision:
                    await self._adopt(await asyncio.to_thread(self._registered_only, registered), registered)
                else:
                    await self._adopt(self.current.catalogue, registered)
            except (DefinitionError, StoreUnavailableError) as error:
                if str(error) != self.fault:
                    logger(__name__).warning("definitions stay as they were", error=str(error))
                self.fault = str(error)
            else:
                self.fault = ""

    async def _in_this_store(self, registered: RegistryState) -> RegistryState:
        """The registered versions. Records the store first if it is another than the registered one."""
        epoch = await self.store.epoch(secrets.token_hex(8))
        if epoch == registered.epoch:
            return registered
        cutovers = registered.cutovers
        if registered.epoch:
            logger(__name__).warning("the store has lost all features; they are filled again from files and the topic")
            with suppress(DefinitionError):  # the workers report files that have changed
                cutovers = await self._cutovers_now()
        await self.registry.move(registered.epoch, epoch, cutovers)
        return await self.registry.load()

    async def _cutovers_now(self) -> dict[str, HistoryCutover]:
        catalogue = self.current.catalogue
        labels = [version.label for version in catalogue.versions]
        return await asyncio.to_thread(_cutovers, labels, catalogue, self._latest_s)

    @property
    def _latest_s(self) -> float:
        return self.clock.now() + self.future_s

    async def _adopt(self, catalogue: Catalogue, registered: RegistryState) -> None:
        filled: dict[str, frozenset[int]] = {}
        partitions = [HISTORY, *range(self.partitions)]
        for partition, names in zip(partitions, await self.store.filled_rings(partitions), strict=True):
            for name in names:
                filled[name] = filled.get(name, frozenset()) | {partition}
        if self._current is None or catalogue is not self._current.catalogue or registered != self._current.registered:
            self._current = DefinitionsSnapshot.of(catalogue, registered, filled)
        elif filled != self._current.filled_rings:
            self._current = replace(self._current, filled_rings=filled)

    def _load(self, registered: RegistryState) -> Catalogue:
        catalogue = Catalogue.load(self.module, registered.versions)
        rings = DefinitionsSnapshot.of(catalogue, registered, None).rings
        rings.check_size(self.store.largest_item_bytes, self.partitions)
        return catalogue

    def _registered_only(self, registered: RegistryState) -> Catalogue:
        """The module's definitions as they are now if all are registered, else as they were."""
        labels = {version.label for version in registered.versions}
        for load in (self._load, lambda registered: self.current.catalogue.again(registered.versions)):
            try:
                catalogue = load(registered)
            except DefinitionError as error:
                logger(__name__).warning("changed definitions can't be loaded", error=str(error))
                continue
            if all(version.label in labels for version in catalogue.versions):
                return catalogue
        raise DefinitionError("the definitions of this process are no longer registered: apply them, or start it again")


def _rings(views: Mapping[str, FeatureView], registered: RegistryState, generation: int) -> Rings:
    versions = registered.versions
    retired_predecessors = {
        version.label: sum(
            other.name == version.name and 0 < other.retired_after < version.number for other in versions
        )
        for version in versions
    }
    cutovers = {label: (cutover.until_s, cutover.sha256) for label, cutover in registered.cutovers.items()}
    return Rings.of(views, cutovers, generation, retired_predecessors)


def _check_unused(catalogue: Catalogue, label: str, retiring: Sequence[str]) -> None:
    if label in catalogue.today.values():
        raise VersionInUseError(f"the definitions use {label}; change or remove the view there and apply them first")
    for user in catalogue.users(label):
        if user not in retiring:
            raise VersionInUseError(f"{user} is computed from {label}; retire it, too")


def _cutovers(labels: Sequence[str], catalogue: Catalogue, latest_s: float) -> dict[str, HistoryCutover]:
    """The cutovers of versions of views as of now, by label."""
    cutovers: dict[str, HistoryCutover] = {}
    known: list[tuple[EventSource, HistoryCutover | None]] = []
    for label in labels:
        view = catalogue.kept[label]
        if isinstance(view, FeatureView):
            source = history_of(catalogue, view)
            try:
                cutover = next((cutover for other, cutover in known if other == source), None) or cutover_of(
                    source, latest_s
                )
            except TrainingSetError as error:
                raise DefinitionError(f"view {label!r}: {error}", source.location) from error
            known.append((source, cutover))
            if cutover is not None:
                cutovers[label] = cutover
    return cutovers


def history_of(catalogue: Catalogue, view: FeatureView) -> EventSource:
    """The source whose files fill a version: today's where it has all columns, since files move; else its own."""
    today = catalogue.sources.get(view.source.name)
    if today is not None and today.history and view.source.schema.items() <= today.schema.items():
        return today
    return view.source


def definitions_for_tests(catalogue: Catalogue, store: FeatureStore, registry: Registry) -> Definitions:
    """Definitions whose rings are filled from the start: for tests, and where no worker fills anything."""
    definitions = Definitions("", registry, store, 1)
    definitions._current = DefinitionsSnapshot.of(catalogue, RegistryState(list(catalogue.versions)), None)  # noqa: SLF001
    return definitions
