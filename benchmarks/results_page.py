"""How long a results page takes among many experiments, some with twelve weeks of days and some decided by AUC."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.feedback_service import Results
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.ids import new_frame_id
from shared.topics import EXPERIMENTS, FEEDBACK, PREDICTIONS, cloud_event_headers

EXPERIMENTS_ANNOUNCED = 50
READS = 200
PARTITIONS = 4
DAYS, FRAMES_PER_DAY, FRAME_ROWS = 28, 4, 40
LONG_EVERY, LONG_DAYS, LONG_FRAME_ROWS = 10, 84, 100
"""Every so many-th experiment has 84 days, and AUC decides it or the one after it does by log loss."""

DAY_S = 86_400.0
WINDOW_S = 3_600.0
COUNTED_WITHIN_S = 240.0
_VARIANTS = ("champion", "challenger")


def revisions(experiments: int, began_at: float) -> Iterator[ExperimentRevision]:
    """The experiments, as a router announces them."""
    for number in range(experiments):
        yield ExperimentRevision(
            name=f"page-{number:02}",
            model="page",
            revision=1,
            epoch=1,
            status="running",
            seed="s",
            champion=_VARIANTS[0],
            variants=[VariantAllocation(name, f"v-{name}", 0.5) for name in _VARIANTS],
            metric="auc" if number % LONG_EVERY == 0 else "log_loss",
            window_s=WINDOW_S,
            clock="event",
            changed_at=began_at,
            started_at=began_at,
        )


def days_of(number: int) -> tuple[int, int]:
    """How many days an experiment has, and the rows of a frame; there are FRAMES_PER_DAY frames a day."""
    is_long = number % LONG_EVERY < 2  # noqa: PLR2004 - one by AUC, one by log loss
    return (LONG_DAYS, LONG_FRAME_ROWS) if is_long else (DAYS, FRAME_ROWS)


async def announce(kafka: str, experiments: int) -> int:
    """Send the experiments with predictions and a label for each of them; return the number of predictions."""
    began_at = (time.time() // DAY_S - LONG_DAYS - 1.0) * DAY_S
    chance, rows = random.Random(11), 0  # noqa: S311 - data, no secret
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=20, max_batch_size=2**20) as producer:
        for number, revision in enumerate(revisions(experiments, began_at)):
            headers = cloud_event_headers(EXPERIMENTS, new_frame_id(time.time()))
            value = EXPERIMENTS.encode(revision)
            await producer.send(EXPERIMENTS.name, value, key=revision.name.encode(), headers=headers)
            days, frame_rows = days_of(number)
            for frame in range(days * FRAMES_PER_DAY):
                at = began_at + frame * DAY_S / FRAMES_PER_DAY + 60.0
                await _send_frame(producer, revision, at, frame_rows, chance)
                rows += frame_rows
        await producer.flush()
    return rows


async def _send_frame(
    producer: AIOKafkaProducer, revision: ExperimentRevision, at: float, rows: int, chance: random.Random
) -> None:
    frame_id, partition = new_frame_id(time.time()), chance.randrange(PARTITIONS)
    blocks = [
        _block(revision, variant.name, at, rows // len(revision.variants), chance) for variant in revision.variants
    ]
    headers = cloud_event_headers(PREDICTIONS, frame_id)
    await producer.send(
        PREDICTIONS.name, PREDICTIONS.encode(PredictionFrame(blocks)), partition=partition, headers=headers
    )
    scores = [score for block in blocks for score in block.score]
    events = [
        FeedbackGiven(frame_id, row, int(chance.random() < score), at + 60.0)
        for row, score in enumerate(scores)
        if isinstance(score, float)
    ]
    headers = cloud_event_headers(FEEDBACK, new_frame_id(time.time()))
    await producer.send(FEEDBACK.name, FEEDBACK.encode(FeedbackFrame(events)), partition=partition, headers=headers)


def _block(revision: ExperimentRevision, variant: str, at: float, rows: int, chance: random.Random) -> PredictionBlock:
    return PredictionBlock(
        model=revision.model,
        version=f"v-{variant}",
        task="binary",
        classes=[0, 1],
        experiment=revision.name,
        revision=revision.revision,
        epoch=revision.epoch,
        window_s=revision.window_s,
        variant=variant,
        served_variant=variant,
        assignment_probability=0.5,
        unit=[f"u{chance.randrange(100_000)}" for _ in range(rows)],
        time=[at] * rows,
        score=[chance.betavariate(2.0, 5.0) for _ in range(rows)],
    )


async def wait_counted(client: httpx.AsyncClient, feedback: str, experiments: int) -> None:
    """Return once all rows but those of the last hours have matured with their labels.

    Raises:
        TimeoutError: the worker does not get through.
    """
    async with asyncio.timeout(COUNTED_WITHIN_S):
        for number in reversed(range(experiments)):
            days, frame_rows = days_of(number)
            wanted = (days - 1) * FRAMES_PER_DAY * frame_rows
            url = f"{feedback}/v1/experiments/page-{number:02}/results"
            while await _matured(client, url) < wanted:  # noqa: ASYNC110 - of results there is only a look
                await asyncio.sleep(0.5)


async def _matured(client: httpx.AsyncClient, url: str) -> int:
    answer = await client.get(url)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return 0
    results = msgspec.json.decode(answer.raise_for_status().content, type=Results)
    return sum(variant.matured_labelled for variant in results.variants)


async def read_pages(client: httpx.AsyncClient, feedback: str, experiments: int, reads: int) -> dict[str, list[float]]:
    """Seconds of each read by the kind of experiment, page after page; one read of each is not counted."""
    seconds: dict[str, list[float]] = {"auc": [], "long": [], "other": []}
    for read in range(-experiments, reads):
        number = read % experiments
        began = time.perf_counter()
        answer = await client.get(f"{feedback}/experiments/page-{number:02}")
        took = time.perf_counter() - began
        answer.raise_for_status()
        kind = ("auc", "long", *("other",) * LONG_EVERY)[number % LONG_EVERY]
        if read >= 0:
            seconds[kind].append(took)
    return seconds


async def measure_page(kafka: str, feedback: str, experiments: int, reads: int) -> dict[str, Any]:
    """p95 of the reads of pages among so many experiments."""
    began = time.monotonic()
    rows = await announce(kafka, experiments)
    async with httpx.AsyncClient(timeout=30.0) as client:
        await wait_counted(client, feedback, experiments)
        counted_s = time.monotonic() - began
        seconds = await read_pages(client, feedback, experiments, reads)
        listed = await _p95_of(client, f"{feedback}/", 20)
        controls = await _p95_of(client, f"{feedback}/livez", reads)
    everything = [took for kind in seconds.values() for took in kind]
    return {
        "page_ms": _p95(everything),
        "page_p50_ms": float(1e3 * np.median(everything)),
        "page_auc_84_days_ms": _p95(seconds["auc"]),
        "page_log_loss_84_days_ms": _p95(seconds["long"]),
        "page_list_ms": listed,
        "page_control_livez_ms": controls,
        "page_rows": rows,
        "page_rows_counted_s": counted_s,
    }


async def _p95_of(client: httpx.AsyncClient, url: str, reads: int) -> float:
    seconds = []
    for _ in range(reads):
        began = time.perf_counter()
        (await client.get(url)).raise_for_status()
        seconds.append(time.perf_counter() - began)
    return _p95(seconds)


def _p95(seconds: Sequence[float]) -> float:
    return float(1e3 * np.percentile(seconds, 95)) if seconds else float("nan")
