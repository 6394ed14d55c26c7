"""Flushes: what has begun is in Kafka before the partitions go to another worker."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP

from services.feedback_service.flushing import Flusher, StalledError
from services.feedback_service.join import Join
from services.feedback_service.tables import LocalTables
from shared.clock import FixedClock
from tests.unit.feedback_service.test_join import apply, block, predictions


@dataclass
class SlowProducer:
    """A producer that hands each record over once it may, and whose records are in Kafka when it is told so."""

    may_send: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[bytes] = field(default_factory=list)

    async def send(self, topic: str, key: bytes, *_: Any) -> asyncio.Future[Any]:
        assert topic == "changelog"
        if self.sent:
            await self.may_send.wait()
        self.sent.append(key)
        record: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        record.set_result(SimpleNamespace(offset=len(self.sent)))
        return record


@pytest.fixture
def producer() -> SlowProducer:
    return SlowProducer()


@pytest.fixture
def flushing(producer: SlowProducer, tmp_path: Path) -> Flusher:
    """One partition with a frame that was not flushed."""
    tables = LocalTables(tmp_path)
    join = Join(tables.partition)
    app = cast("Any", SimpleNamespace(producer=producer))
    flushing = Flusher(app, join, tables, "changelog", FixedClock(1_000.0), 100)
    flushing.acquire([0])
    apply(join, predictions("f", block()))
    return flushing


async def test_partitions_are_released_when_a_running_flush_is_complete(flushing, producer):
    flush = asyncio.create_task(flushing.flush())
    while not producer.sent:
        await asyncio.sleep(0)
    release = asyncio.create_task(flushing.release())
    for _ in range(100):
        await asyncio.sleep(0)
    assert 0 in flushing.join.partitions
    producer.may_send.set()
    await release
    assert (flush.done(), producer.sent[0], producer.sent[-1]) == (True, b"i", b"m")
    assert 0 not in flushing.join.partitions
    assert flushing.tables.partition(0).changelog_offset == len(producer.sent)


async def test_a_flush_that_kafka_does_not_take_is_not_waited_for_for_ever(flushing, producer):
    flushing.stalled_s = 0.05
    flush = asyncio.create_task(flushing.flush())
    while not producer.sent:
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await flushing.release()
    producer.may_send.set()
    await flush


async def test_a_suspended_worker_differs_from_one_that_computes(flushing):
    times, computed = iter([0.0, 60.0, 120.0]), iter([5.0, 65.0, 65.0])  # seconds at each call
    flushing.time_s, flushing.computed_s = lambda: next(times), lambda: next(computed)
    flushing.note_running()
    flushing.note_running()
    with pytest.raises(StalledError):
        flushing.note_running()


@dataclass
class Ends:
    """A consumer that answers where the topics end."""

    ends: list[int]
    fails: bool = False

    async def highwaters(self, *topics: TP) -> dict[TP, int]:
        if self.fails:
            raise KafkaError
        return dict(zip(topics, self.ends, strict=True))


async def test_topics_are_caught_up_with_while_records_keep_coming(flushing):
    consumer = flushing.app.consumer = Ends([4, 0])
    aggregates = flushing.join.partitions[0].aggregates
    clock = cast("FixedClock", flushing.clock)
    seen = []
    for offset in range(1, 9):
        apply(flushing.join, predictions(f"f{offset}", block(), offset=offset))
        consumer.fails = offset == 2
        consumer.ends = [offset + 4, 0]  # never to their end
        await flushing.check_ends()
        seen.append(aggregates.caught_up_at)
        clock.advance(1.0)
    assert seen == [None, None, None, 1_000.0, 1_000.0, 1_000.0, 1_003.0, 1_003.0]
