"""A trial run ends within its limits, tells what a version costs, and the service answers on."""

import asyncio

import msgspec
import numpy as np
import pytest
from onnx import helper

from contender.contracts.inference_service import InputColumn, ModelVersion
from services.inference_service.errors import UnsafeModelError
from services.inference_service.settings import InferenceSettings
from services.inference_service.trial import Trial
from services.inference_service.trials import Trials
from shared.errors import Overloaded
from tests.unit.inference_service.graphs import constant, export, filling, looping, small

ENDLESS = 2**40


@pytest.fixture
def trial_seconds() -> int:
    """More than any trial that ends takes; a test of one that does not end gives its own."""
    return 60


@pytest.fixture
def settings(tmp_path, trial_seconds) -> InferenceSettings:
    return InferenceSettings(data=tmp_path, trial_seconds=trial_seconds, trial_limit=1, trial_queue_limit=1)


@pytest.fixture
def trial(settings) -> Trial:
    return Trial(
        version=ModelVersion(
            model="m", version="", task="regression", inputs=[InputColumn("x", "float")], registered_at=0.0
        ),
        tolerance=1e-5,
        row_limit=10,
        text_limit=10,
        node_limit=10,
        seconds=settings.trial_seconds,
        memory_bytes=settings.trial_bytes,
    )


def sample(described) -> bytes:
    return msgspec.json.encode(described.sample)


@pytest.mark.parametrize(
    ("trial_seconds", "greedy", "slug", "detail"),
    [(60, lambda: filling(2**28), "answer", "alloc"), (3, lambda: looping(ENDLESS), "unsafe-model", "within 3 s")],
    ids=["memory", "time"],
)
async def test_a_model_that_needs_more_than_it_may_is_refused_and_the_service_answers_on(
    client, upload, greedy, slug, detail
):
    answer = await upload(greedy())
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["type"].endswith(f"/{slug}")
    assert detail in answer.json()["detail"]
    assert (await client.get("/v1/models")).json() == {"versions": []}
    assert (await upload(small())).status_code == 201
    predicted = await client.post("/v1/models/churn/versions/champion/predict", json={"inputs": {"x": [3.5]}})
    assert predicted.json()["scores"] == [3.5]


async def test_a_trial_that_may_have_hardly_any_memory_is_a_refusal(settings, trial):
    trials = Trials(settings)
    assert (await trials.run(trial, small().onnx, sample(small()))).finding.worst == 0.0
    scarce = msgspec.structs.replace(trial, memory_bytes=1024**2)
    with pytest.raises(UnsafeModelError):
        await trials.run(scarce, small().onnx, sample(small()))


async def test_uploads_wait_for_their_trials_and_those_beyond_the_queue_are_told_to_come_again(settings, trial):
    trials = Trials(settings)
    running = [asyncio.create_task(trials.run(trial, small().onnx, sample(small()))) for _ in range(3)]
    results = await asyncio.gather(*running, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert [error.retry_after_s for error in refused] == [1]
    assert len([result for result in results if not isinstance(result, Exception)]) == 2


async def test_a_file_of_nothing_but_empty_parts_is_refused_before_it_takes_the_memory(settings, trial):
    count = 2**20
    parts = b"\x0a\x00" * count  # a graph of empty nodes
    length = bytes([2 * count & 127 | 128, 2 * count >> 7 & 127 | 128, 2 * count >> 14 & 127 | 128, 2 * count >> 21])
    with pytest.raises(UnsafeModelError, match=r"is not an ONNX file|too many parts"):
        await Trials(settings).run(trial, b"\x3a" + length + parts, sample(small()))


async def test_what_runs_is_what_was_checked(settings, trial):
    """A field that the checks do not know does not come through."""
    unknown = small().onnx + b"\xfa\x7f\x03abc"  # field 2047
    tried = await Trials(settings).run(trial, unknown, sample(small()))
    assert tried.checked == small().onnx


def pairs():
    """Every row beside every other one, in a thousand columns: many rows take the square of their number."""
    return export(
        constant("wide", np.ones((1, 1024), dtype=np.float32)),
        constant("axis", np.array([1], dtype=np.int64)),
        constant("zero", np.zeros(1, dtype=np.float32)),
        helper.make_node("MatMul", ["x", "wide"], ["many"]),
        helper.make_node("Unsqueeze", ["many", "axis"], ["apart"]),
        helper.make_node("Add", ["apart", "many"], ["pairs"]),
        helper.make_node("ReduceMax", ["pairs"], ["most"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["most", "axis"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    )


@pytest.mark.parametrize(
    ("described", "quick"),
    [(small, True), (pairs, False), (lambda: filling(4), False), (lambda: looping(3), False), (looping, False)],
    ids=["identity", "all pairs of rows", "a shape from the rows", "a loop of three", "a loop as long as a row says"],
)
async def test_only_a_model_whose_cost_follows_from_its_rows_may_run_in_the_web_process(
    settings, trial, described, quick
):
    roomy = msgspec.structs.replace(trial, node_limit=100, tolerance=1.0)
    tried = await Trials(settings).run(roomy, described().onnx, sample(described()))
    assert tried.finding.record.quick == quick
    assert tried.finding.record.reference == {"x": 1.0}


async def test_a_version_can_be_measured_without_a_sample(settings, trial):
    bare = msgspec.structs.replace(trial, has_sample=False)
    tried = await Trials(settings).run(bare, small().onnx, b"")
    record = tried.finding.record
    assert record.quick
    assert record.reference == {}
    assert 0 < record.row_ms < record.opening_ms
