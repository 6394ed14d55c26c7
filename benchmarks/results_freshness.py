"""How soon predictions and feedback are in the results that a reader gets, at a steady rate over HTTP."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from benchmarks.results_stack import MODEL
from shared.streams import frame_id_in
from shared.topics import FEEDBACK, PREDICTIONS

PREDICTIONS_PER_S, FEEDBACK_PER_S = 500, 200
ROWS_PER_CALL = 25
RUN_S = 60.0
_LABEL_AFTER_S = 2.0
_WARM_S = 3.0
"""Rows of the first seconds do not count: connections are opened, models loaded."""

_READ_EVERY_S = 0.1
_SEEN_WITHIN_S = 30.0
_CALLS_AT_ONCE = 50


class _Read(msgspec.Struct):
    """What is needed of results: the offsets up to which records are counted."""

    offsets: dict[str, dict[str, int]]


@dataclass
class Watched:
    """The records of one topic from the acknowledgement of their rows until results show them.

    A row is known by its frame and number. Its record is found by reading the topic beside the worker.
    """

    acknowledged: dict[tuple[str, int], float] = field(default_factory=dict)
    offsets: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """When a row was acknowledged, and how long it took from then."""

    def read(self, counted: dict[str, int], now: float) -> None:
        """Note the rows that results show at this time."""
        for row, (partition, offset) in list(self.offsets.items()):
            if offset <= counted.get(partition, -1) and row in self.acknowledged:
                self.latencies.append((self.acknowledged[row], max(0.0, now - self.acknowledged.pop(row))))
                del self.offsets[row]


@dataclass
class Freshness:
    """One run.

    Args:
        router: address of the router.
        feedback: address of the feedback service.
        kafka: bootstrap servers.
        experiment: its rows are counted.
        run_s: how long rows are sent.
    """

    router: str
    feedback: str
    kafka: str
    experiment: str
    run_s: float
    _predictions: Watched = field(default_factory=Watched)
    _reports: Watched = field(default_factory=Watched)
    _answered: deque[tuple[float, str]] = field(default_factory=deque)
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))
    _read_s: list[float] = field(default_factory=list)
    _units: int = 0

    async def run(self) -> dict[str, Any]:
        """Send, read, and wait until everything is seen.

        Raises:
            TimeoutError: some rows never show.
        """
        limits = httpx.Limits(max_connections=_CALLS_AT_ONCE)
        partitions = [TopicPartition(topic, n) for topic in (PREDICTIONS.name, FEEDBACK.name) for n in range(4)]
        async with (
            httpx.AsyncClient(limits=limits, timeout=30.0) as client,
            AIOKafkaConsumer(bootstrap_servers=self.kafka) as consumer,
        ):
            consumer.assign(partitions)
            await consumer.seek_to_end(*partitions)
            beside = [asyncio.create_task(self._tail(consumer)), asyncio.create_task(self._read(client))]
            began = time.monotonic()
            await asyncio.gather(
                self._repeat(lambda: self._predict(client), PREDICTIONS_PER_S),
                self._repeat(lambda: self._report(client), FEEDBACK_PER_S),
            )
            took = time.monotonic() - began
            sent = [
                len(watched.latencies) + len(watched.acknowledged) for watched in (self._predictions, self._reports)
            ]
            async with asyncio.timeout(_SEEN_WITHIN_S):
                while self._predictions.acknowledged or self._reports.acknowledged:
                    _raise_failures(beside)
                    await asyncio.sleep(_READ_EVERY_S)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        predictions, reports = (
            [latency for at, latency in watched.latencies if at >= began + _WARM_S]
            for watched in (self._predictions, self._reports)
        )
        everything = predictions + reports
        return {
            "freshness_p99_ms": _milliseconds(everything, 99),
            "freshness_p50_ms": _milliseconds(everything, 50),
            "freshness_max_ms": _milliseconds(everything, 100),
            "predictions_freshness_p99_ms": _milliseconds(predictions, 99),
            "feedback_freshness_p99_ms": _milliseconds(reports, 99),
            "freshness_predictions_per_s": sent[0] / took,
            "freshness_feedback_per_s": sent[1] / took,
            "results_read_p95_ms_under_load": _milliseconds(self._read_s, 95),
        }

    async def _repeat(self, call: Any, rows_per_s: float) -> None:
        """Make calls of ROWS_PER_CALL rows at a steady rate, however long each takes."""
        began, calls = time.monotonic(), int(self.run_s * rows_per_s / ROWS_PER_CALL)
        running = []
        for number in range(calls):
            await asyncio.sleep(max(0.0, began + number * ROWS_PER_CALL / rows_per_s - time.monotonic()))
            running.append(asyncio.create_task(call()))
        await asyncio.gather(*running)

    async def _predict(self, client: httpx.AsyncClient) -> None:
        ages, spends = self._random.normal(40, 10, ROWS_PER_CALL), self._random.normal(5, 2, ROWS_PER_CALL)
        self._units += ROWS_PER_CALL
        rows = [
            {"unit": f"u{self._units + number}", "inputs": {"age": age, "spend": spend}}
            for number, (age, spend) in enumerate(zip(ages.tolist(), spends.tolist(), strict=True))
        ]
        answer = await client.post(f"{self.router}/v1/models/{MODEL}/predict/batch", json={"rows": rows})
        now = time.monotonic()
        for prediction in answer.raise_for_status().json()["predictions"]:
            frame_id, _, row = prediction["prediction_id"].rsplit("-", 2)
            self._predictions.acknowledged[frame_id, int(row)] = now
            self._answered.append((now, prediction["prediction_id"]))

    async def _report(self, client: httpx.AsyncClient) -> None:
        now = time.monotonic()
        items: list[dict[str, Any]] = []
        while self._answered and len(items) < ROWS_PER_CALL and self._answered[0][0] < now - _LABEL_AFTER_S:
            items.append({"prediction_id": self._answered.popleft()[1], "outcome": bool(self._random.random() < 0.5)})  # noqa: PLR2004
        if not items:
            return
        answer = await client.post(f"{self.feedback}/v1/feedback", json={"feedback": items})
        answer.raise_for_status()
        now = time.monotonic()
        for item in items:
            frame_id, _, row = item["prediction_id"].rsplit("-", 2)
            self._reports.acknowledged[frame_id, int(row)] = now

    async def _tail(self, consumer: AIOKafkaConsumer) -> None:
        """Note the offset of each row's record."""
        async for record in consumer:
            watched = self._predictions if record.topic == PREDICTIONS.name else self._reports
            for row in _rows_in(record):
                watched.offsets[row] = (str(record.partition), record.offset)

    async def _read(self, client: httpx.AsyncClient) -> None:
        """Read results again and again."""
        while True:
            began = time.monotonic()
            answer = await client.get(f"{self.feedback}/v1/experiments/{self.experiment}/results")
            now = time.monotonic()
            self._read_s.append(now - began)
            offsets = {}
            if answer.status_code != httpx.codes.NOT_FOUND:  # the experiment was started a moment ago
                offsets = msgspec.json.decode(answer.raise_for_status().content, type=_Read).offsets
            self._predictions.read(offsets.get(PREDICTIONS.name, {}), now)
            self._reports.read(offsets.get(FEEDBACK.name, {}), now)
            await asyncio.sleep(_READ_EVERY_S)


def _rows_in(record: ConsumerRecord) -> list[tuple[str, int]]:
    if record.topic == PREDICTIONS.name:
        frame_id, frame = frame_id_in(record.headers), PREDICTIONS.decode(record.value)
        return [(frame_id, row) for row in range(sum(map(len, frame.blocks)))]
    return [(event.frame_id, event.row) for event in FEEDBACK.decode(record.value).events]


def _raise_failures(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def _milliseconds(seconds: Sequence[float], percentile: float) -> float:
    return float(1e3 * np.percentile(seconds, percentile))
