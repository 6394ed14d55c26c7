"""The open sessions of a process."""

from collections import OrderedDict
from collections.abc import Callable

from services.inference_service.session import Session


class Sessions:
    """Open sessions by version; the longest unused is closed first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: OrderedDict[str, Session] = OrderedDict()

    def get(self, version: str, load: Callable[[], Session]) -> Session:
        """The version's session, opened by `load` when it is not open."""
        session = self._open.get(version)
        if session is None:
            session = self._open[version] = load()
        self._open.move_to_end(version)
        while len(self._open) > self._limit:
            self._open.popitem(last=False)
        return session
