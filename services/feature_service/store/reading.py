"""Reads of rings behind a circuit breaker: a store that hangs keeps the first question waiting, not each one."""

import asyncio
from collections.abc import Sequence

from services.feature_service.store.protocol import RingQuery, RingReader, RingsRead, StoreUnavailableError
from shared.breaker import Breaker, Faults

_FAILURES = 3
_REST_S = 0.5
_READS_AT_ONCE = 64
"""The client has 100 connections, and refuses a read for which none is free."""


class StoreTimeoutError(StoreUnavailableError):
    """The store has not answered in time."""


class BreakingReader:
    """A RingReader that asks another one as long as it answers.

    Args:
        store: has the rings.
        timeout_s: longest wait for an answer, the client's own retries included.
    """

    def __init__(self, store: RingReader, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s
        faults = Faults("the store of features", StoreUnavailableError, StoreTimeoutError)
        self._breaker = Breaker(_FAILURES, _REST_S, faults)
        self._room = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        """The rings that queries ask for, read at once."""
        async with self._room:  # whoever waited for a turn is refused at once where the store has failed meanwhile
            return await self._breaker.call(lambda: self._read(queries))

    async def _read(self, queries: Sequence[RingQuery]) -> RingsRead:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._store.read(queries)
        except TimeoutError as error:
            raise StoreTimeoutError(f"the store of features has not answered within {self._timeout_s:g} s") from error
