"""Units that keep the variant they got first: known from this process, else read from the store, which routers share.

Answers never wait for a write, and for a store that fails only the call that finds out.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from itertools import islice

from prometheus_client import Counter

from services.ab_router.domain.assignment import FirstAssignment, UnitKey
from services.ab_router.settings import RouterSettings
from services.ab_router.stored_assignments import AssignmentStore, AssignmentsUnavailableError
from shared.background import run_every
from shared.errors import Overloaded
from shared.logs import logger
from shared.microbatch import MicroBatcher

LOST = Counter(
    "contender_first_assignments_lost_total",
    "First assignments that were not written, since the store failed for too long: such units may change their variant",
)
UNREADABLE = Counter(
    "contender_first_assignments_unreadable_total",
    "Units, once for each call, that the champion answered and that don't count: their first assignment is unreadable",
)
_BATCH = 1_000
"""Units that one call writes: some milliseconds of Redis, which answers nobody else meanwhile."""
_LINGER_S = 0.05
"""From one writing to the next: how long new units wait for others to be written with."""
_SLOWEST_S = 5.0
"""The same while writing fails in a way that nobody foresaw."""
_CLOSE_S = 2.0
"""Longest that a process that ends waits for the units that are not written yet."""
_LOG = logger(__name__)


@asynccontextmanager
async def open_sticky_units(store: AssignmentStore, settings: RouterSettings) -> AsyncIterator["StickyUnits"]:
    """Units that are written in the background for the length of a block."""
    units = StickyUnits(store, settings)
    try:
        async with run_every(units.work, _LINGER_S, slowest_s=_SLOWEST_S, name="write first assignments"):
            yield units
    finally:
        await units.close()


class StickyUnits:
    """First assignments of units, read and written.

    Args:
        store: shared by all routers.
        settings: the limits and the deadline of a read.
    """

    def __init__(self, store: AssignmentStore, settings: RouterSettings) -> None:
        self._store = store
        self._settings = settings
        self._reads = MicroBatcher[UnitKey, FirstAssignment | None](
            self._read_batch, batch_limit=_BATCH, queue_limit=settings.queue_limit
        )
        self._waiting: dict[UnitKey, FirstAssignment] = {}
        self._known: dict[UnitKey, FirstAssignment | None] = {}
        self._known_longer: dict[UnitKey, FirstAssignment | None] = {}
        self._unread: list[UnitKey] = []
        self._forgotten: set[str] = set()
        self._has_work = asyncio.Event()
        self._is_failing = False

    async def read(self, keys: Collection[UnitKey]) -> dict[UnitKey, FirstAssignment | None]:
        """What is known of units: None for a new one. Those that can't be read in time are left out."""
        known: dict[UnitKey, FirstAssignment | None] = {key: first for key in keys if (first := self._own(key))}
        asked = [key for key in keys if key not in known]
        if not asked:
            return known
        if not self._unread:  # else the store is left alone until it answers the background's question
            try:
                async with asyncio.timeout(self._settings.assignment_timeout_s):
                    stored = await self._reads.submit_all(asked)
            except (AssignmentsUnavailableError, Overloaded, TimeoutError) as error:
                self._note_unread(asked, error)
            else:
                for key, first in zip(asked, stored, strict=True):
                    known[key] = self._own(key) or first  # another call may have assigned the unit meanwhile
                    if first:
                        self._remember(key, first)
        UNREADABLE.inc(len(keys) - len(known))
        return known

    def note(self, units: Iterable[tuple[UnitKey, FirstAssignment]]) -> None:
        """Write the assignments of units that are not known to be in the store, in the background."""
        for key, first in units:
            if key in self._known or key in self._known_longer or key in self._waiting:
                continue
            if len(self._waiting) >= self._settings.assignment_queue_limit:
                LOST.inc()
                continue
            self._waiting[key] = first
            self._has_work.set()

    async def forget(self, stopped: Iterable[str]) -> None:
        """Delete the units of experiments that have stopped.

        Raises:
            AssignmentsUnavailableError: the store fails; what is left then is deleted another time, or expires.
        """
        for name in stopped:
            if name not in self._forgotten:
                self._waiting = {key: first for key, first in self._waiting.items() if key.experiment != name}
                self._known = {key: first for key, first in self._known.items() if key.experiment != name}
                self._known_longer.clear()
                await self._store.forget(name)
                self._forgotten.add(name)

    async def close(self) -> None:
        """Write what waits, within two seconds, and count as lost what is left."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                while self._waiting and await self._write():
                    pass
                await self._reads.drain()
        except TimeoutError:
            pass
        LOST.inc(len(self._waiting))

    async def work(self) -> None:
        """Write what waits, and ask a store that failed whether it answers again; rest while it does not."""
        await self._has_work.wait()
        can_read = not self._unread or await self._read_again()
        can_write = True
        while self._waiting and can_write:
            can_write = await self._write()
        if not (can_read and can_write):
            await asyncio.sleep(self._settings.breaker_rest_s)
        elif not self._unread and not self._waiting:
            self._has_work.clear()

    def _own(self, key: UnitKey) -> FirstAssignment | None:
        """What this process knows of a unit by itself."""
        return self._waiting.get(key) or self._known.get(key) or self._known_longer.get(key)

    def _remember(self, key: UnitKey, first: FirstAssignment | None) -> None:
        """Keep a unit as one that is in the store; None: with what, only the store knows.

        The older half of the units is dropped at once: to find the oldest one takes a dict longer with each that goes.
        """
        if len(self._known) >= self._settings.assignment_memory_limit // 2:
            self._known, self._known_longer = {}, self._known
        self._known[key] = first

    def _note_unread(self, keys: list[UnitKey], error: Exception) -> None:
        if not self._unread:
            _LOG.warning(
                "first assignments can't be read: the champion answers units that need theirs", error=repr(error)
            )
        self._unread = keys
        self._has_work.set()

    async def _read_batch(self, keys: list[UnitKey]) -> list[FirstAssignment | None]:
        """Read units of several calls. A failure is noted here: callers with short deadlines have left before it."""
        try:
            async with asyncio.timeout(self._settings.assignment_timeout_s):
                return await self._store.read(keys)
        except (AssignmentsUnavailableError, TimeoutError) as error:
            self._note_unread(keys, error)
            raise

    async def _read_again(self) -> bool:
        """Read what could not be read, and return whether the store answered."""
        try:
            async with asyncio.timeout(self._settings.assignment_timeout_s):
                await self._store.read(self._unread)
        except (AssignmentsUnavailableError, TimeoutError):
            return False
        self._unread = []
        _LOG.info("first assignments can be read again")
        return True

    async def _write(self) -> bool:
        """Write a batch, and return whether the store took it."""
        batch = dict(islice(self._waiting.items(), _BATCH))
        try:
            are_new = await self._store.write(batch)
        except AssignmentsUnavailableError as error:
            if not self._is_failing:
                _LOG.warning("first assignments can't be written, and are kept", error=str(error))
            self._is_failing = True
            return False
        self._is_failing = False
        for (key, first), is_new in zip(batch.items(), are_new, strict=True):
            self._waiting.pop(key, None)
            self._remember(key, first if is_new else None)
        return True
