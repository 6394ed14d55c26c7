"""Taking events in: how many one worker process merges per second, and how soon a feature shows an event."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import urlopen

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from benchmarks.features_stack import Stack
from examples.flights.data import load
from services.feature_service.domain.rings import Ring, StoredRing
from services.feature_service.store.redis import ring_keys
from shared.events import EntityEvent, EntityEventFrame
from shared.ids import new_frame_id
from shared.topics import ENTITY_EVENTS, cloud_event_headers

FRAME_EVENTS = 100
ROUNDS = 3
FRAMES_PER_ROUND = 1000
SINGLES_PER_ROUND = 40_000
FRESHNESS_S = 20
LEAST_EVENTS_PER_S = 10_000
_MERGED = 'contender_feature_events_total{outcome="merged"}'
_YEAR_S = 365 * 86_400
_DEADLINE_S = 120
_POLL_S = 0.005
_WATCHED = ("EWR", "UA")
"""Entities that are in practically every frame of 100 departures: what is watched moves with every frame."""


class Departures:
    """The flights' departures as events in the order of time, year after year."""

    def __init__(self) -> None:
        self._events = self._endless()

    def take(self, count: int) -> list[EntityEvent]:
        """The next ones."""
        return [next(self._events) for _ in range(count)]

    @staticmethod
    def _endless() -> Iterator[EntityEvent]:
        rows = load().departures.rows(named=True)
        year = 0
        while True:
            for row in rows:
                values = {name: row[name] for name in ("carrier", "origin", "tail_number", "dep_delay")}
                yield EntityEvent("departures", row["time"] + year * _YEAR_S, values)
            year += 1


def measure_frames(stack: Stack, departures: Departures) -> dict[str, Any]:
    """Events per second from a topic of frames."""

    def records() -> Iterator[bytes]:
        for _ in range(FRAMES_PER_ROUND):
            yield ENTITY_EVENTS.encode(EntityEventFrame(departures.take(FRAME_EVENTS)))

    return _measured(stack, "frames", records, FRAME_EVENTS)


def measure_single(stack: Stack, departures: Departures) -> dict[str, Any]:
    """Events per second from a topic of plain events, one a record and without headers, as other producers send."""

    def records() -> Iterator[bytes]:
        yield from (msgspec.json.encode(event) for event in departures.take(SINGLES_PER_ROUND))

    return _measured(stack, "single", records, 1)


def measure_freshness(stack: Stack, departures: Departures, events_per_s: float) -> dict[str, Any]:
    """From the producer's send until the marks of two rings show the frame, at a steady rate."""
    latencies, sent_per_s = asyncio.run(_freshness(stack, departures, events_per_s))
    ordered = sorted(latencies)
    return {
        "freshness_p99_ms": 1e3 * ordered[int(0.99 * len(ordered))],
        "freshness_p50_ms": 1e3 * statistics.median(ordered),
        "freshness_max_ms": 1e3 * ordered[-1],
        "freshness_events_per_s": sent_per_s,
    }


def _measured(stack: Stack, name: str, records: Callable[[], Iterator[bytes]], events: int) -> dict[str, Any]:
    rounds = [_round(stack, list(records()), events) for _ in range(ROUNDS)]
    return {
        f"events_per_s_{name}": statistics.median(rate for rate, _ in rounds),
        f"{name}_rates": [rate for rate, _ in rounds],
        f"{name}_events_per_worker_cpu_s": statistics.median(rate for _, rate in rounds),
    }


def _round(stack: Stack, values: Sequence[bytes], events: int) -> tuple[float, float]:
    """Events per second, and per second of the worker's processor time, from the first one applied to the last."""
    stack.worker.stop()
    ends = asyncio.run(_prefill(stack, values))
    stack.worker.start()
    with Redis.from_url(stack.valkey) as redis:
        before = sum(_merged(stack, redis).values())
        end = time.monotonic() + _DEADLINE_S
        started: tuple[float, float, int] | None = None
        while (merged := _merged(stack, redis)) != ends:
            now = time.monotonic()
            if now > end:
                raise TimeoutError(f"events are not merged after {_DEADLINE_S} s: see {stack.worker.log}")
            if started is None and sum(merged.values()) > before:
                started = (now, stack.cpu_s(stack.worker), sum(merged.values()))
            time.sleep(_POLL_S)
    if started is None:
        raise RuntimeError("the worker was done before it was seen to begin: more records are needed")
    _expect_merged(stack, len(values) * events)
    first, cpu_s, done = started
    count = (sum(ends.values()) - done) * events
    return count / (time.monotonic() - first), count / (stack.cpu_s(stack.worker) - cpu_s)


def _expect_merged(stack: Stack, events: int) -> None:
    """Make sure that every event went into the features.

    Raises:
        RuntimeError: some were set aside.
    """
    with urlopen(f"http://127.0.0.1:{stack.worker.port}/metrics", timeout=_DEADLINE_S) as answer:
        counts = [line.split()[-1] for line in answer.read().decode().splitlines() if line.startswith(_MERGED)]
    if sum(float(count) for count in counts) != events:
        raise RuntimeError(f"{counts} events are merged where {events} were sent: see {stack.worker.log}")


def _merged(stack: Stack, redis: Redis) -> dict[int, int]:
    """Per partition one more than the last offset that is applied."""
    return {partition: offset + 1 for partition, offset in stack.applied(redis).items()}


async def _prefill(stack: Stack, values: Sequence[bytes]) -> dict[int, int]:
    """Send records to all partitions in turn; the ends of the partitions."""
    async with _producer(stack) as producer:
        for number, value in enumerate(values):
            await producer.send(ENTITY_EVENTS.name, value, partition=number % stack.partitions, headers=_headers(value))
        await producer.flush()
    places = [TopicPartition(ENTITY_EVENTS.name, partition) for partition in range(stack.partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=stack.kafka) as consumer:
        return {partition.partition: end for partition, end in (await consumer.end_offsets(places)).items()}


def _headers(value: bytes) -> list[tuple[str, bytes]]:
    """A frame brings an id, as ours do; a plain event none."""
    is_frame = value.startswith(b'{"events"')
    return cloud_event_headers(ENTITY_EVENTS, new_frame_id(time.time())) if is_frame else []


@asynccontextmanager
async def _producer(stack: Stack) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(
        bootstrap_servers=stack.kafka, acks="all", enable_idempotence=True, max_batch_size=256 * 1024
    ) as producer:
        yield producer


async def _freshness(stack: Stack, departures: Departures, events_per_s: float) -> tuple[list[float], float]:
    frames = int(FRESHNESS_S * events_per_s / FRAME_EVENTS)
    waiting: dict[int, dict[int, float]] = {partition: {} for partition in range(stack.partitions)}
    latencies: list[float] = []
    async with _producer(stack) as producer, AsyncRedis.from_url(stack.valkey) as redis:
        watching = asyncio.create_task(_watch(stack, redis, waiting, latencies))
        started = time.monotonic()
        sending = []
        for number in range(frames):
            value = ENTITY_EVENTS.encode(EntityEventFrame(_timed_now(departures)))
            await asyncio.sleep(started + number * FRAME_EVENTS / events_per_s - time.monotonic())
            sending.append(asyncio.create_task(_send(producer, number % stack.partitions, value, waiting)))
        await asyncio.gather(*sending)
        sent_per_s = frames * FRAME_EVENTS / (time.monotonic() - started)
        async with asyncio.timeout(_DEADLINE_S):
            while any(waiting.values()):  # noqa: ASYNC110 - of a store there is only a look
                await asyncio.sleep(_POLL_S)
        watching.cancel()
    return latencies, sent_per_s


def _timed_now(departures: Departures) -> list[EntityEvent]:
    now = time.time()
    return [EntityEvent(event.source, now, event.values) for event in departures.take(FRAME_EVENTS)]


async def _send(producer: AIOKafkaProducer, partition: int, value: bytes, waiting: dict[int, dict[int, float]]) -> None:
    sent = time.monotonic()
    record = await producer.send_and_wait(ENTITY_EVENTS.name, value, partition=partition, headers=_headers(value))
    waiting[partition][record.offset] = sent


async def _watch(stack: Stack, redis: AsyncRedis, waiting: dict[int, dict[int, float]], latencies: list[float]) -> None:
    """Note when the marks of both rings have reached frames that wait."""
    watched = [(ring, _entity(ring)) for ring in stack.rings_of("departures") if ring.where is None]
    while True:
        pipeline = redis.pipeline(transaction=False)
        for ring, entity in watched:
            pipeline.get(*ring_keys(ring, [entity]))
        held = await pipeline.execute()
        now = time.monotonic()
        for partition, frames in waiting.items():
            reached = min(_mark(value, ring, partition) for value, (ring, _) in zip(held, watched, strict=True))
            shown = [offset for offset in frames if offset < reached]
            latencies.extend(now - frames.pop(offset) for offset in shown)
        await asyncio.sleep(0.001)


def _entity(ring: Ring) -> str:
    return _WATCHED[0] if ring.join_keys == ("origin",) else _WATCHED[1]


def _mark(value: bytes | None, ring: Ring, partition: int) -> float:
    """One more than the last offset of a partition that is merged."""
    return StoredRing(value or b"").offset_marks(ring).get(partition, 0.0)
