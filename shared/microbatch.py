"""Micro-batching: what is queued when the previous call returns goes out as the next; no timer adds latency."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from shared.errors import Overloaded

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Call(Generic[ItemT, ResultT]):
    """The items of one submit, what they weigh, and where their results are awaited."""

    items: Sequence[ItemT]
    weight: int
    results: asyncio.Future[Sequence[ResultT | Exception]]


class MicroBatcher(Generic[ItemT, ResultT]):
    """Groups concurrent calls into batches. The items of one call never lie in two batches.

    A call that its caller gave up before its batch is taken is left out. `send` begins in the same step of the event
    loop in which the batch is taken: what it does before its first await, it does for callers who still wait.

    A sender is a task that runs as long as something waits, so an idle batcher takes a little memory and no task. Two
    senders measured best: one serialises the far end's work with ours, three make smaller batches.

    Args:
        send: answers a batch with one result per item, in order; an item's own failure is an Exception as its result.
        senders: calls in flight at once.
        batch_limit: most items in a batch; a call with more is a batch of its own.
        queue_limit: most items that wait; beyond it a submit is refused at once.
        weigh: an item's weight, such as its bytes.
        weight_limit: most weight in a batch; a call with more is a batch of its own. 0 sets no limit.
    """

    def __init__(
        self,
        send: Callable[[list[ItemT]], Awaitable[Sequence[ResultT | Exception]]],
        *,
        senders: int = 2,
        batch_limit: int = 256,
        queue_limit: int = 4096,
        weigh: Callable[[ItemT], int] = lambda _: 0,
        weight_limit: int = 0,
    ) -> None:
        self._send = send
        self._senders = senders
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._weigh = weigh
        self._weight_limit = weight_limit
        self._waiting: deque[_Call[ItemT, ResultT]] = deque()
        self._waiting_items = 0
        self._running = 0
        self._is_starting = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._running

    @property
    def waiting(self) -> int:
        """How many items wait for a batch."""
        return self._waiting_items

    async def drain(self) -> None:
        """Return when everything submitted so far is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def submit(self, item: ItemT) -> ResultT:
        """The item's result; the caller sets the deadline, with `asyncio.timeout`.

        Raises:
            Overloaded: the queue is full.
            Exception: what `send` raised, or gave as this item's result.
        """
        return (await self.submit_all([item]))[0]

    async def submit_all(self, items: Sequence[ItemT]) -> list[ResultT]:
        """The items' results, in order; all of them are queued or none is. The caller sets the deadline.

        Raises:
            Overloaded: the queue has no room for them.
            Exception: what `send` raised, or gave as the result of one of them.
        """
        if not items:
            return []
        if self._waiting_items + len(items) > self._queue_limit:
            raise Overloaded("more calls wait than can be answered in time")
        weight = sum(map(self._weigh, items)) if self._weight_limit else 0
        call: _Call[ItemT, ResultT] = _Call(items, weight, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._waiting_items += len(items)
        self._start_sender()
        return [_result(result) for result in await call.results]

    def _start_sender(self) -> None:
        """Start a sender for what waits, unless a started one is still to take its batch or the limit runs."""
        if self._waiting and not self._is_starting and self._running < self._senders:
            self._is_starting = True
            self._running += 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        self._is_starting = False
        try:
            while self._waiting:
                calls = [call for call in self._take_batch() if not call.results.done()]
                self._start_sender()  # for what did not fit
                await self._answer(calls)
        finally:
            self._running -= 1

    def _take_batch(self) -> list[_Call[ItemT, ResultT]]:
        """The next batch: as many whole calls as fit, at least one."""
        calls = [self._waiting.popleft()]
        size, weight = len(calls[0].items), calls[0].weight
        while self._waiting:
            size += len(self._waiting[0].items)
            weight += self._waiting[0].weight
            if size > self._batch_limit or weight > self._weight_limit > 0:
                break
            calls.append(self._waiting.popleft())
        self._waiting_items -= sum(len(call.items) for call in calls)
        return calls

    async def _answer(self, calls: list[_Call[ItemT, ResultT]]) -> None:
        items = [item for call in calls for item in call.items]
        if not items:
            return
        results: Sequence[ResultT | Exception]
        try:
            results = await self._send(items)
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets the error
            results = [error] * len(items)
        start = 0
        for call in calls:
            end = start + len(call.items)
            if not call.results.done():
                call.results.set_result(results[start:end])
            start = end


def _result(result: ResultT | Exception) -> ResultT:
    if isinstance(result, Exception):
        raise result
    return result
