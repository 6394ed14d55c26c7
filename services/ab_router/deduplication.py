"""Calls with a request id: the same call gets the same answer, and is recorded once.

The first call leaves a marker in the store, does its work until its rows are in the journal, and replaces the marker
by its answer before its caller gets it. A call that is refused or fails removes the marker. So a repeated call finds
the answer, or the marker of a call that is being answered, or nothing.

The work goes on when its caller waits no longer: the answer is there for the call that follows. Where the router dies
before the answer is kept, repeated calls are told to wait until the marker expires, and are then answered anew: their
rows are in the journal a second time if the router died between the journal and the store.

While the store is away, calls are answered and marked as not deduplicated.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self, TypeVar

from services.ab_router.request_ids import CALLS, DeduplicatedAnswer, IdentifiedCall, answer_kept, entry_of
from services.ab_router.settings import RouterSettings
from services.ab_router.stored_answers import AnswerStore, AnswerStoreError, AnswerStoreTimeoutError
from shared.breaker import Breaker, Faults

_MARKER_DEADLINES = 2
"""A marker outlives its call, which looks its model up before its deadline begins."""

_CALLS_AT_ONCE = 64
"""Calls to the store at once: the client has 100 connections, and refuses a call for which none is free."""

AnswerT = TypeVar("AnswerT")
AskedT = TypeVar("AskedT")


class Deduplication:
    """Answers calls that have a request id.

    Args:
        store: where answers are kept.
        settings: how long, and how long a call may take.
    """

    def __init__(self, store: AnswerStore, settings: RouterSettings) -> None:
        self._store = store
        self._kept_s = settings.request_ids_kept_s
        self._marker_s = _MARKER_DEADLINES * settings.deadline_s
        faults = Faults("the store of answers", AnswerStoreError, AnswerStoreTimeoutError)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_rest_s, faults)
        self._room = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._tasks: set[asyncio.Task[DeduplicatedAnswer]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def answer(
        self, call: IdentifiedCall, work: Callable[[], Awaitable[AnswerT]], encode: Callable[[AnswerT, bool], bytes]
    ) -> DeduplicatedAnswer:
        """The answer of the first call of that id, which is this one or an earlier one.

        Args:
            call: what is asked.
            work: makes the answer and records it; it has a deadline of its own.
            encode: the bytes of an answer, given whether it is deduplicated; may raise a ServiceError in its place.

        Raises:
            RequestIdReusedError: the earlier call had another payload.
            RequestInFlightError: the earlier call is being answered.
            Exception: what `work` or `encode` raises.
        """
        # The claim goes on without its caller, too: else a store that hangs for longer than callers wait would make
        # each of them wait in vain, for the breaker never learned of it.
        task = asyncio.create_task(self._kept_answer(call.key, call.new_marker(), work, encode))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        try:
            return await asyncio.shield(task)
        except AnswerStoreError:
            CALLS.labels("not deduplicated").inc()
            return DeduplicatedAnswer(encode(await work(), False))

    async def _kept_answer(
        self,
        key: bytes,
        marker: bytes,
        work: Callable[[], Awaitable[AnswerT]],
        encode: Callable[[AnswerT, bool], bytes],
    ) -> DeduplicatedAnswer:
        """The answer that is kept, or that of the work.

        Raises:
            AnswerStoreError: the id could not be claimed; no work is done.
            As `answer`.
        """
        kept = await self._ask(lambda: self._store.claim(key, marker, self._marker_s))
        if kept is not None and kept != marker:  # the client repeats a claim whose answer was lost: it reads its own
            return answer_kept(kept, marker)
        try:
            answer = await work()
            body = encode(answer, True)
        except BaseException:
            await self._free(key, marker)
            raise
        entry = entry_of(marker, body)
        try:
            is_kept = await self._ask(lambda: self._store.replace(key, marker, entry, self._kept_s))
        except AnswerStoreError:
            CALLS.labels("not deduplicated").inc()
            return DeduplicatedAnswer(encode(answer, False))
        CALLS.labels("first" if is_kept else "not deduplicated").inc()
        return DeduplicatedAnswer(body if is_kept else encode(answer, False))

    async def _free(self, key: bytes, marker: bytes) -> None:
        CALLS.labels("freed").inc()
        with suppress(AnswerStoreError):  # the id is free when its marker expires
            await self._ask(lambda: self._store.remove(key, marker))

    async def _ask(self, ask: Callable[[], Awaitable[AskedT]]) -> AskedT:
        """What the store answers. Whoever waited for a turn is refused at once where the store has failed meanwhile."""
        async with self._room:
            return await self._breaker.call(ask)

    def _end(self, task: "asyncio.Task[DeduplicatedAnswer]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller has it, unless it has left
