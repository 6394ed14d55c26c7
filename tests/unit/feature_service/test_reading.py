"""Questions for features while their store hangs or refuses connections."""

import asyncio
from collections.abc import Sequence

import pytest

from services.feature_service.store import RingQuery, RingsRead, StoreUnavailableError
from services.feature_service.store.reading import BreakingReader, StoreTimeoutError


class Store:
    """Answers unless it is `away` or `frozen`."""

    def __init__(self) -> None:
        self.away = False
        self.frozen = False
        self.reads = 0

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        self.reads += 1
        if self.frozen:
            await asyncio.Event().wait()
        if self.away:
            raise StoreUnavailableError("Redis: refused")
        return RingsRead("epoch", [])


async def test_a_store_that_hangs_keeps_the_first_question_waiting_alone():
    store = Store()
    reader = BreakingReader(store, timeout_s=0.02)
    assert (await reader.read([])).epoch == "epoch"
    store.frozen = True
    with pytest.raises(StoreTimeoutError, match="within 0"):
        await reader.read([])
    for _ in range(20):
        with pytest.raises(StoreUnavailableError, match="the store of features"):
            await reader.read([])
    assert store.reads == 2


async def test_a_store_that_refuses_connections_is_left_alone_after_some_of_them():
    store = Store()
    store.away = True
    reader = BreakingReader(store, timeout_s=5)
    for _ in range(20):
        with pytest.raises(StoreUnavailableError):
            await reader.read([])
    assert store.reads == 3


async def test_more_questions_than_the_client_has_connections_wait_for_one():
    class Crowded(Store):
        """Refuses a read for which it has no connection, as the client of Redis does."""

        free = 100

        async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
            if not self.free:
                raise StoreUnavailableError("Redis: too many connections")
            self.free -= 1
            await asyncio.sleep(0)
            self.free += 1
            return await super().read(queries)

    reader = BreakingReader(Crowded(), timeout_s=5)
    answers = await asyncio.gather(*(reader.read([]) for _ in range(300)))
    assert {answer.epoch for answer in answers} == {"epoch"}
