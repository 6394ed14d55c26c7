"""Micro-batching sends what waits when a call returns, and tells each caller its own result."""

import asyncio

import pytest

from shared.errors import Overloaded
from shared.microbatch import MicroBatcher


class GatedSend:
    """Notes its batches, and answers them once its gate is open."""

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await self.gate.wait()
        return [item * self.factor for item in items]


async def test_what_waits_during_a_call_goes_out_together():
    send = GatedSend(factor=10)
    async with MicroBatcher(send, senders=1) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        while not send.batches:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher.submit(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        send.gate.set()
        assert await asyncio.gather(first, *rest) == [0, 10, 20, 30, 40, 50]
    assert send.batches == [[0], [1, 2, 3, 4, 5]]


async def test_one_items_failure_is_its_callers_alone():
    async def send(items: list[int]) -> list[int | Exception]:
        return [ValueError("odd") if item % 2 else item for item in items]

    async with MicroBatcher(send) as batcher:
        results = await asyncio.gather(*(batcher.submit(n) for n in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [int, ValueError, int, ValueError]


async def test_a_failed_call_fails_all_its_callers_and_the_next_goes_on():
    calls = 0

    async def send(items: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("gone")
        return items

    async with MicroBatcher(send, senders=1) as batcher:
        with pytest.raises(ConnectionError):
            await batcher.submit(1)
        assert await batcher.submit(2) == 2


async def test_a_full_queue_is_refused_at_once():
    send = GatedSend()
    async with MicroBatcher(send, senders=1, queue_limit=1) as batcher:
        sent = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="more calls wait"):
            await batcher.submit(3)
        send.gate.set()
        assert await asyncio.gather(sent, waiting) == [1, 2]


async def test_no_more_batches_are_in_flight_than_there_are_senders():
    send = GatedSend()
    async with MicroBatcher(send, senders=2, batch_limit=2) as batcher:
        calls = [asyncio.create_task(batcher.submit(number)) for number in range(7)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert send.batches == [[0, 1], [2, 3]]
        send.gate.set()
        assert await asyncio.gather(*calls) == list(range(7))
    assert send.batches == [[0, 1], [2, 3], [4, 5], [6]]


async def test_a_batch_holds_what_fits_by_weight():
    batches: list[list[str]] = []

    async def send(items: list[str]) -> list[str]:
        batches.append(items)
        return items

    async with MicroBatcher(send, senders=1, weigh=len, weight_limit=5) as batcher:
        texts = ["aa", "bbb", "c", "dddddddd", "ee", "f"]
        assert await asyncio.gather(*(batcher.submit(text) for text in texts)) == texts
    assert batches == [["aa", "bbb"], ["c"], ["dddddddd"], ["ee", "f"]]


async def test_a_batcher_that_is_idle_has_no_task_and_works_again_when_asked():
    async def send(items: list[int]) -> list[int]:
        return items

    tasks = asyncio.all_tasks()
    async with MicroBatcher(send) as batcher:
        for number in range(3):
            assert await batcher.submit(number) == number
            await batcher.drain()
            assert batcher.is_idle
            assert asyncio.all_tasks() == tasks


async def test_leaving_waits_until_everything_is_answered():
    async def send(items: list[int]) -> list[int]:
        for _ in range(10):
            await asyncio.sleep(0)
        return items

    async with MicroBatcher(send, senders=1, batch_limit=1) as batcher:
        calls = [asyncio.create_task(batcher.submit(number)) for number in range(4)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*calls) == [0, 1, 2, 3]


async def test_the_items_of_one_call_never_lie_in_two_batches():
    send = GatedSend()
    async with MicroBatcher(send, senders=1, batch_limit=4) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        while not send.batches:
            await asyncio.sleep(0)
        calls = [[1, 2, 3], [4, 5], [6, 7], [8, 9, 10, 11, 12], [13]]
        rest = [asyncio.create_task(batcher.submit_all(call)) for call in calls]
        await asyncio.sleep(0)
        send.gate.set()
        assert await asyncio.gather(first, *rest) == [0, *calls]
    assert send.batches == [[0], [1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11, 12], [13]]


async def test_a_call_that_was_given_up_is_not_sent_and_makes_room():
    send = GatedSend()
    async with MicroBatcher(send, senders=1, queue_limit=2) as batcher:
        first = asyncio.create_task(batcher.submit(0))
        while not send.batches:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(batcher.submit_all([1, 2]))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        send.gate.set()
        assert await first == 0
        assert await batcher.submit_all([3, 4]) == [3, 4]
        assert await batcher.submit_all([]) == []
    assert send.batches == [[0], [3, 4]]
