"""How a web process ends: it is not ready at once, serves on for a while, and then stops listening."""

import gc
import signal
import socket
from time import monotonic
from types import FrameType

import uvicorn

from shared.guard import Guard


class DrainingServer(uvicorn.Server):
    """A server that serves on for a while after SIGTERM, so that whoever spreads the calls sees that it is not ready.

    Another signal meanwhile ends it at once, as SIGINT does.

    Args:
        config: uvicorn's.
        guard: the application, which tells its callers.
        drain_s: seconds from SIGTERM until it stops listening.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard, drain_s: float) -> None:
        super().__init__(config)
        self._guard = guard
        self._drain_s = drain_s
        self._ends_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and let the collector of garbage leave alone what is there for good: else it halts calls for it."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or to end."""
        drains = sig == signal.SIGTERM and self._drain_s > 0 and self.started and self._ends_at is None
        self._guard.is_draining = True
        if drains:
            self._ends_at = monotonic() + self._drain_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop listening now; asked several times a second."""
        if self._ends_at is not None and monotonic() >= self._ends_at:
            self.should_exit = True
        return await super().on_tick(counter)
