"""Frees what rings take that nobody feeds any more: those of retired versions, and those from before a rebuild.

Rings over windows expire by themselves; those over all time would stay for good.
"""

from dataclasses import dataclass, field

from services.feature_service.definitions import Definitions
from services.feature_service.store.protocol import FeatureStore
from shared.logs import logger


@dataclass(slots=True)
class Sweeper:
    """Deletes dead rings, each once.

    Args:
        definitions: say which rings are dead.
        store: where they lie.
    """

    definitions: Definitions
    store: FeatureStore
    _noticed: set[str] = field(default_factory=set)
    _swept: set[str] = field(default_factory=set)

    async def sweep(self) -> None:
        """Delete the rings that were dead the last time already: by now every worker knows, and feeds them no more.

        Raises:
            StoreUnavailableError: the store can't be reached; the next sweep goes on.
        """
        dead = {ring.name: ring for ring in self.definitions.current.dead()}
        for name in self._noticed & dead.keys() - self._swept:
            if entities := await self.store.forget(dead[name]):
                logger(__name__).info("a ring that nobody feeds is deleted", ring=name, entities=entities)
            self._swept.add(name)
        self._noticed.update(dead)
