"""The router under load: no answer has another row's data, each unit has one variant, and every book says the same."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import polars as pl
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
FILE_ROWS, KILLS, KILLED_AFTER = 60_000, 3, 8
TOLERANCE = 1e-6  # relative: scores are 32-bit


@pytest.fixture(scope="module")
def stack(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = stack_in(tmp_path_factory.mktemp("home"), kafka_jars)
    try:
        started = stack.run("up", "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        stack.environment["CONTENDER_URL"] = stack.settings.url("ab_router")  # for commands that call services
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


async def ids_in_topic(stack: Stack, model: str) -> Counter:
    """How often each prediction of a model is in the topic."""
    own = [TopicPartition(PREDICTIONS.name, number) for number in range(stack.settings.partitions)]
    bootstrap = f"127.0.0.1:{stack.settings.kafka_port}"
    found: Counter = Counter()
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign(own)
        await consumer.seek_to_beginning(*own)
        ends = await consumer.end_offsets(own)
        while behind := [at for at in own if await consumer.position(at) < ends[at]]:
            for at, records in (await consumer.getmany(*behind, timeout_ms=500)).items():
                for record in records:
                    frame = dict(record.headers)["ce_id"].decode()
                    models = [block.model for block in PREDICTIONS.decode(record.value).blocks for _ in block.unit]
                    numbers = [number for number, each in enumerate(models) if each == model]
                    found.update(str(PredictionId(frame, at.partition, number)) for number in numbers)
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
    in_topic = asyncio.run(ids_in_topic(stack, MODEL))
    assert set(in_topic) == set(answers.ids)
    assert set(in_topic.values()) == {1}
    assert logged(stack, MODEL) == ROWS


def logged(stack: Stack, model: str) -> float:
    """The predictions of a model that the router says it has written."""
    lines = httpx.get(stack.settings.url("ab_router") + "/metrics").text.splitlines()
    own = [line for line in lines if line.startswith("contender_predictions_total{") and f'model="{model}"' in line]
    return sum(float(line.split()[-1]) for line in own)


@pytest.mark.timeout(600)
def test_a_file_that_is_scored_in_spite_of_kills_has_every_row_once(stack: Stack, tmp_path: Path):
    table, output = tmp_path / "rows.parquet", tmp_path / "scores.parquet"
    pl.DataFrame(
        {"unit": [f"u-{number % UNITS}" for number in range(FILE_ROWS)], "x": np.arange(1.0, FILE_ROWS + 1)}
    ).write_parquet(table)
    rows = pd.DataFrame({"x": np.random.default_rng(3).uniform(1, FILE_ROWS, 500)})
    with stack.client() as client:
        client.register("scored", LinearRegression(fit_intercept=False).fit(rows, rows["x"]), rows, rows["x"])
    command = ["score", str(table), str(output), "--model", "scored", "--calls", "2"]
    parts = tmp_path / "scores.parquet.parts"
    for kill in range(1, KILLS + 1):
        running = stack.start(*command)
        wait_for(lambda enough=kill * KILLED_AFTER: len(list(parts.glob("*.parquet"))) >= enough)
        running.kill()
        running.communicate()
        assert not output.exists()
    ended = stack.run(*command, timeout_s=300)
    assert ended.returncode == 0, ended.stderr
    scores = pl.read_parquet(output)
    assert scores["row"].to_list() == list(range(FILE_ROWS))
    assert scores["error"].null_count() == FILE_ROWS
    assert np.allclose(scores["score"].to_numpy(), np.arange(1.0, FILE_ROWS + 1), rtol=TOLERANCE)
    assert scores["prediction_id"].n_unique() == FILE_ROWS
    wait_for(lambda: logged(stack, "scored") >= FILE_ROWS)
    in_topic = asyncio.run(ids_in_topic(stack, "scored"))
    assert set(in_topic) == set(scores["prediction_id"])
    assert set(in_topic.values()) == {1}
