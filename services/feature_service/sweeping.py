"""Frees the memory of rings that nobody feeds any more: of retired versions, and from before a rebuild.

Rings over windows expire by themselves; those over all time would stay for good.
"""

from dataclasses import dataclass, field

from services.feature_service.definitions import Definitions
from services.feature_service.store import FeatureStore
from shared.logs import logger


@dataclass(slots=True)
class Sweeper:
    """Deletes abandoned rings, each once.

    Args:
        definitions: say which rings are abandoned.
        store: holds them.
    """

    definitions: Definitions
    store: FeatureStore
    _noticed: set[str] = field(default_factory=set)
    _swept: set[str] = field(default_factory=set)

    async def sweep(self) -> None:
        """Delete the rings that were already abandoned at the last sweep: by now every worker knows.

        Raises:
            StoreUnavailableError: the store can't be reached; the next sweep goes on.
        """
        abandoned = {ring.name: ring for ring in self.definitions.current.abandoned_rings()}
        for name in self._noticed & abandoned.keys() - self._swept:
            if entities := await self.store.forget(abandoned[name]):
                logger(__name__).info("deleted an abandoned ring", ring=name, entities=entities)
            self._swept.add(name)
        self._noticed.update(abandoned)
