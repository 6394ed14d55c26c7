"""Micro-batching: what is queued when the previous call returns goes out as the next; no timer adds latency."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from shared.problems import Unavailable

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Overloaded(Unavailable):
    """More is queued than can be answered within the deadline."""

    slug = "overloaded"


class MicroBatcher(Generic[ItemT, ResultT]):
    """Groups concurrent calls into batches.

    Two senders measured best: one serialises the far end's work with ours, three make smaller batches.

    Args:
        send: answers a batch with one result per item, in order; an item's own failure is an Exception as its result.
        senders: calls in flight at once.
        batch_limit: most items in a call.
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
        self._queue: asyncio.Queue[tuple[ItemT, asyncio.Future[ResultT]]] = asyncio.Queue(queue_limit)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._senders)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._queue.join()
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
        if self._queue.qsize() + len(items) > self._queue.maxsize:
            raise Overloaded("more calls wait than can be answered in time")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[ResultT]] = [loop.create_future() for _ in items]
        for item, future in zip(items, futures, strict=True):
            self._queue.put_nowait((item, future))
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.gather(*futures)
        except TimeoutError as error:
            raise Overloaded(f"no answer within {self._deadline_s:g} s") from error
        finally:
            for future in futures:
                _abandon(future)

    async def _run(self) -> None:
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < self._batch_limit and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            try:
                await self._answer([pair for pair in waiting if not pair[1].done()])
            finally:
                for _ in waiting:
                    self._queue.task_done()

    async def _answer(self, waiting: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        if not waiting:
            return
        try:
            results = await self._send([item for item, _ in waiting])
        except Exception as error:  # noqa: BLE001 - whatever failed belongs to the callers, who are told
            results = [error] * len(waiting)
        for (_, future), result in zip(waiting, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _abandon(future: "asyncio.Future[ResultT]") -> None:
    """Nobody waits any more: the failures of the others than the first have been told with it."""
    if future.done():
        if not future.cancelled():
            future.exception()
    else:
        future.cancel()
