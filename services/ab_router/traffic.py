"""Counts what callers really send, and adds the counts to the store in the background, every few seconds."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from contender.contracts.ab_router import PredictionRow
from services.ab_router.catalog import Model
from services.ab_router.counting import Hour
from services.ab_router.domain.traffic import HOUR_S, Counts, DayOfTraffic, hours_of_day
from services.ab_router.stored_traffic import Addition, TrafficStore
from shared.clock import Clock
from shared.errors import Unavailable
from shared.logs import logger

_LOG = logger(__name__)
_ADDITION_LIMIT = 1_000
"""Counts in one addition: Redis answers nobody else meanwhile, for about a millisecond."""


class Traffic:
    """Counts of this process, until they are in the store.

    Each addition has a number. One whose answer was lost is sent again as it was, before anything newer, and the store
    adds it once. While the store is away, counts of the last day wait in memory: their names are bounded, by hour.

    Args:
        store: keeps the counts of all routers.
        clock: which hour it is.
    """

    def __init__(self, store: TrafficStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._router = secrets.token_hex(8)
        self._number = 0
        self._hours: dict[tuple[str, int], Hour] = {}
        self._present: dict[str, Hour] = {}
        self._present_until = 0.0
        self._flushing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.flush()
        except Unavailable as error:
            _LOG.warning("the last counts of traffic are lost", error=error.detail)

    def note(self, model: Model, rows: Sequence[PredictionRow], refusals: Sequence[object | None]) -> None:
        """Count the rows of a call; `refusals` has None for each that is not refused."""
        hour = self._hour(model.name)
        if hour.model is not model:
            hour.adopt(model)
        hour.note(rows, refusals)

    def note_features(self, model: str, statuses: Mapping[str, Sequence[str]]) -> None:
        """Count the statuses of served features, by `view:feature`; one for each row."""
        self._hour(model).note_features(statuses)

    def note_shadow(self, model: str, version: str, seconds: float, rows: int) -> None:
        """Count rows that a version has scored in shadow, so many seconds after it was asked, or the whole deadline."""
        self._hour(model).note_shadow(version, seconds, rows)

    async def day(self, model: str) -> DayOfTraffic:
        """The counts of all routers in the last day.

        Raises:
            Unavailable: the store can't be reached.
        """
        await self.flush()
        now = self._clock.now()
        hours = hours_of_day(now)
        return DayOfTraffic(float(hours[0] * HOUR_S), now, await self._store.read(model, hours))

    async def flush(self) -> None:
        """Add all counts to the store.

        Raises:
            Unavailable: the store can't be reached; the next flush goes on.
        """
        async with self._flushing:
            oldest, *_, present = hours_of_day(self._clock.now())
            for (model, number), hour in list(self._hours.items()):
                if number >= oldest and not hour.is_empty:
                    await self._send(hour.outbox)  # first what waits; counts after it add up meanwhile
                    hour.outbox += self._additions(model, number, hour.take())
                    await self._send(hour.outbox)
                if number < oldest or (number < present and hour.is_empty):
                    del self._hours[model, number]

    async def _send(self, outbox: list[Addition]) -> None:
        while outbox:
            await self._store.add(outbox[0])
            del outbox[0]

    def _additions(self, model: str, hour: int, counts: Counts) -> Iterator[Addition]:
        items = list(counts.items())
        for at in range(0, len(items), _ADDITION_LIMIT):
            self._number += 1
            yield Addition(model, hour, self._router, self._number, dict(items[at : at + _ADDITION_LIMIT]))

    def _hour(self, model: str) -> Hour:
        now = self._clock.now()
        if now >= self._present_until:
            self._present.clear()
            self._present_until = float((now // HOUR_S + 1) * HOUR_S)
        hour = self._present.get(model)
        if hour is None:
            number = int(self._present_until // HOUR_S) - 1
            hour = self._present[model] = self._hours.setdefault((model, number), Hour())
        return hour
