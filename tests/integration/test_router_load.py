"""The router under load: no answer has another row's data, each unit has one variant, and every book says the same."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sklearn.linear_model import LinearRegression

from services.ab_router.domain.hashing import bucket, choose, ranges
from shared.ids import PredictionId
from shared.topics import PREDICTIONS
from tests.stack import Stack, stack_in, wait_for

MODEL = "echo"
CONNECTIONS = 64
SINGLE_ROWS, BATCHES, BATCH_ROWS = 10_000, 180, 500
ROWS = SINGLE_ROWS + BATCHES * BATCH_ROWS
UNITS = 5_000
TOLERANCE = 1e-6  # relative: scores are 32-bit


@pytest.fixture
def stack(kafka_jars: list[Path], tmp_path: Path) -> Iterator[Stack]:
    stack = stack_in(tmp_path, kafka_jars)
    try:
        started = stack.run("up", "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        yield stack
    finally:
        stack.run("down")


def row(number: int) -> dict:
    return {"unit": f"u-{number % UNITS}", "inputs": {"x": float(number + 1)}}


class Answers:
    """What was answered: ids, and the variants of each unit."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.variants: dict[str, set[str]] = {}
        self.rows: Counter = Counter()
        self.mixed_up: list[tuple[int, float]] = []

    def note(self, number: int, answer: dict) -> None:
        score, expected = answer["outputs"]["score"], float(number + 1)
        if abs(score - expected) > TOLERANCE * expected:
            self.mixed_up.append((number, score))
        self.ids.append(answer["prediction_id"])
        self.variants.setdefault(f"u-{number % UNITS}", set()).add(answer["variant"])
        self.rows[answer["variant"]] += 1


async def load(url: str) -> Answers:
    answers, singles, batches = Answers(), iter(range(SINGLE_ROWS)), iter(range(BATCHES))
    limits = httpx.Limits(max_connections=CONNECTIONS + 4)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def predict() -> None:
            for number in singles:
                answer = await client.post(f"/v1/models/{MODEL}/predict", json=row(number))
                assert answer.status_code == httpx.codes.OK, answer.text
                answers.note(number, answer.json())

        async def predict_batches() -> None:
            for batch in batches:
                first = SINGLE_ROWS + batch * BATCH_ROWS
                rows = [row(number) for number in range(first, first + BATCH_ROWS)]
                answer = await client.post(f"/v1/models/{MODEL}/predict/batch", json={"rows": rows})
                assert answer.status_code == httpx.codes.OK, answer.text
                for number, part in enumerate(answer.json()["predictions"], first):
                    answers.note(number, part)

        async with asyncio.TaskGroup() as callers:
            for _ in range(CONNECTIONS):
                callers.create_task(predict())
            for _ in range(2):
                callers.create_task(predict_batches())
    return answers


async def ids_in_topic(bootstrap: str, partitions: int) -> Counter:
    """How often each prediction is in the topic."""
    own = [TopicPartition(PREDICTIONS.name, number) for number in range(partitions)]
    found: Counter = Counter()
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign(own)
        await consumer.seek_to_beginning(*own)
        ends = await consumer.end_offsets(own)
        while behind := [at for at in own if await consumer.position(at) < ends[at]]:
            for at, records in (await consumer.getmany(*behind, timeout_ms=500)).items():
                for record in records:
                    frame = dict(record.headers)["ce_id"].decode()
                    rows = sum(len(block) for block in PREDICTIONS.decode(record.value).blocks)
                    found.update(str(PredictionId(frame, at.partition, number)) for number in range(rows))
    return found


@pytest.mark.timeout(600)
def test_a_hundred_thousand_predictions_are_in_every_book_once(stack: Stack):
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"x": random.uniform(1, ROWS, 500)})
    with stack.client() as client:
        versions = [
            client.register(MODEL, LinearRegression(fit_intercept=intercept).fit(rows, rows["x"]), rows, rows["x"])
            for intercept in (False, True)
        ]
        experiment = client.experiment(MODEL, champion=versions[0], challenger=versions[1], name="aa").start()
        seed = client.revision("aa").seed
        answers = asyncio.run(load(stack.settings.url("ab_router")))

        def counted() -> int:
            return sum(variant.n for variant in experiment.results().variants)

        wait_for(lambda: counted() >= ROWS)
        results = experiment.results()

    assert answers.mixed_up == []
    assert len(set(answers.ids)) == len(answers.ids) == ROWS
    by_hash = ranges(2, 1.0, [0.5, 0.5])
    expected = {unit: ["champion", "challenger"][choose(bucket(seed, unit), by_hash)] for unit in answers.variants}
    assert {unit: {variant} for unit, variant in expected.items()} == answers.variants
    assert {variant.name: variant.n for variant in results.variants} == answers.rows
    assert results.split.p > 0.001
    assert results.split.counts == answers.rows
    in_topic = asyncio.run(ids_in_topic(f"127.0.0.1:{stack.settings.kafka_port}", stack.settings.partitions))
    assert set(in_topic) == set(answers.ids)
    assert set(in_topic.values()) == {1}
    metrics = httpx.get(stack.settings.url("ab_router") + "/metrics").text
    logged = sum(
        float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("contender_predictions_total{")
    )
    assert logged == ROWS
