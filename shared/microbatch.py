"""Micro-batching: what is queued when the previous call returns goes out as the next; no timer adds latency."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from shared.problems import Unavailable

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Overloaded(Unavailable):
    """More is queued than can be answered within the deadline."""

    slug = "overloaded"


@dataclass(frozen=True, slots=True)
class _Call(Generic[ItemT, ResultT]):
    """The items of one submit, and where their results are awaited."""

    items: Sequence[ItemT]
    results: asyncio.Future[Sequence[ResultT | Exception]]


class MicroBatcher(Generic[ItemT, ResultT]):
    """Groups concurrent calls into batches. The items of one call never lie in two batches.

    A call that was given up before its batch goes out is left out of it. One that is given up later is not: a `send`
    that must not act in vain asks its items again before it acts.

    Two senders measured best: one serialises the far end's work with ours, three make smaller batches.

    Args:
        send: answers a batch with one result per item, in order; an item's own failure is an Exception as its result.
        senders: calls in flight at once.
        batch_limit: most items in a batch; a call with more is a batch of its own.
        queue_limit: most items that wait; beyond it a submit is refused at once.
        deadline_s: longest a submit waits for its result.
    """

    def __init__(
        self,
        send: Callable[[list[ItemT]], Awaitable[Sequence[ResultT | Exception]]],
        *,
        senders: int = 2,
        batch_limit: int = 256,
        queue_limit: int = 4096,
        deadline_s: float = 10.0,
    ) -> None:
        self._send = send
        self._senders = senders
        self._batch_limit = batch_limit
        self._deadline_s = deadline_s
        self._queue_limit = queue_limit
        self._waiting: deque[_Call[ItemT, ResultT]] = deque()
        self._waiting_items = 0
        self._unanswered = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._senders)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._unanswered:
            self._idle.clear()
            await self._idle.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def submit(self, item: ItemT) -> ResultT:
        """The item's result.

        Raises:
            Overloaded: the queue is full or the deadline has passed.
            Exception: what `send` raised, or gave as this item's result.
        """
        return (await self.submit_all([item]))[0]

    async def submit_all(self, items: Sequence[ItemT]) -> list[ResultT]:
        """The items' results, in order; all of them are queued or none is.

        Raises:
            Overloaded: the queue has no room for them, or the deadline has passed.
            Exception: what `send` raised, or gave as the result of one of them.
        """
        if not items:
            return []
        if self._waiting_items + len(items) > self._queue_limit:
            raise Overloaded("more calls wait than can be answered in time")
        call: _Call[ItemT, ResultT] = _Call(items, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._waiting_items += len(items)
        self._unanswered += 1
        self._arrived.set()
        try:
            async with asyncio.timeout(self._deadline_s):
                results = await call.results
        except TimeoutError as error:
            raise Overloaded(f"no answer within {self._deadline_s:g} s") from error
        return [_result(one) for one in results]

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            calls = self._taken()
            try:
                await self._answer([call for call in calls if not call.results.done()])
            finally:
                self._unanswered -= len(calls)
                self._idle.set()

    def _taken(self) -> list[_Call[ItemT, ResultT]]:
        """The next batch: as many whole calls as fit, at least one."""
        calls = [self._waiting.popleft()]
        size = len(calls[0].items)
        while self._waiting and size + len(self._waiting[0].items) <= self._batch_limit:
            calls.append(self._waiting.popleft())
            size += len(calls[-1].items)
        self._waiting_items -= size
        return calls

    async def _answer(self, calls: list[_Call[ItemT, ResultT]]) -> None:
        items = [item for call in calls for item in call.items]
        if not items:
            return
        results: Sequence[ResultT | Exception]
        try:
            results = await self._send(items)
        except Exception as error:  # noqa: BLE001 - whatever failed belongs to the callers, who are told
            results = [error] * len(items)
        start = 0
        for call in calls:
            end = start + len(call.items)
            if not call.results.done():
                call.results.set_result(results[start:end])
            start = end


def _result(one: ResultT | Exception) -> ResultT:
    if isinstance(one, Exception):
        raise one
    return one
