"""Models of unknown cost answer from processes of their own, and what they do there is nobody else's trouble."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from services.inference_service.domain.cost import TrialRecord
from services.inference_service.runners import ProcessRunner
from services.inference_service.settings import InferenceSettings
from shared.errors import Overloaded
from tests.unit.inference_service.graphs import filling, looping, small

UNKNOWN_COST = TrialRecord(reference={"x": 1.0})
ENDLESS = 1e15


@pytest.fixture
def run_seconds() -> float:
    """More than any row that ends takes; a test of one that does not end gives its own."""
    return 60.0


@pytest.fixture
def settings(settings, run_seconds) -> InferenceSettings:
    limits = {"run_seconds": run_seconds, "answer_seconds": 120.0, "process_limit": 2, "call_queue_limit": 1}
    return settings.model_copy(update=limits)


@pytest.fixture
def predict(client):
    async def post(model: str, values: list[float]):
        return await client.post(f"/v1/models/{model}/versions/champion/predict", json={"inputs": {"x": values}})

    return post


async def runner_of(state, version) -> ProcessRunner:
    runner = await state["models"].runtime.open(version)
    assert isinstance(runner, ProcessRunner)
    return runner


async def pid_of(state, version) -> int:
    return (await (await runner_of(state, version))._running()).pid


async def stopped_call(state, version, predict, *values: float) -> asyncio.Task[httpx.Response]:
    """A call that the model's process has, and does not work on until it gets SIGCONT."""
    runner = await runner_of(state, version)
    os.kill(await pid_of(state, version), signal.SIGSTOP)
    call = asyncio.create_task(predict(version.model, list(values)))
    await until(lambda: not runner.idle)
    return call


def faults(answer) -> list[tuple[int, int]]:
    assert answer.status_code == 200
    return [(fault["row"], fault["status"]) for fault in answer.json().get("errors", [])]


async def test_a_row_that_asks_for_more_memory_than_a_call_may_take_is_refused_and_the_process_goes_on(
    keep, state, predict
):
    version = await keep("fat", filling(1_000), UNKNOWN_COST)
    first = await pid_of(state, version)
    answer = await predict("fat", [2.0, 200_000.0, 3.0])
    assert faults(answer) == [(1, 422)]
    assert answer.json()["errors"][0]["field"] == "inputs.x"
    assert answer.json()["scores"] == [2.0, None, 3.0]
    assert await pid_of(state, version) == first


@pytest.mark.parametrize("run_seconds", [1.0])
async def test_a_row_that_takes_for_ever_is_refused_and_other_models_answer_meanwhile(keep, state, client, predict):
    version = await keep("slow", looping(), UNKNOWN_COST)
    await keep("quick", small())
    slow = await stopped_call(state, version, predict, ENDLESS)
    for _ in range(4):
        assert (await predict("quick", [4.0])).json()["scores"] == [4.0]
        assert (await client.get("/livez")).status_code == 200
    assert not slow.done()
    os.kill(await pid_of(state, version), signal.SIGCONT)
    assert faults(await slow) == [(0, 422)]


async def test_a_process_that_ends_over_a_call_is_started_anew_and_the_call_is_answered(keep, state, predict):
    version = await keep("slow", looping(), UNKNOWN_COST)
    first = await pid_of(state, version)
    call = await stopped_call(state, version, predict, 1.0, 20.0, 2.0, 3.0)
    os.kill(first, signal.SIGKILL)
    answer = await call
    assert faults(answer) == []
    assert answer.json()["scores"] == [1.0, 20.0, 2.0, 3.0]
    assert await pid_of(state, version) != first


async def test_there_are_no_more_processes_than_allowed_and_the_longest_idle_one_makes_room(keep, state):
    versions = [await keep(name, looping(), UNKNOWN_COST) for name in ("one", "two", "three")]
    pids = [await pid_of(state, version) for version in versions]
    assert not exists(pids[0])
    assert exists(pids[1])
    assert exists(pids[2])
    assert exists(await pid_of(state, versions[0]))
    assert not exists(pids[1])


async def test_a_model_waits_for_no_process_where_all_are_busy(keep, state, predict):
    versions = [await keep(name, looping(), UNKNOWN_COST) for name in ("one", "two", "three")]
    busy = [await stopped_call(state, version, predict, 2.0) for version in versions[:2]]
    answer = await predict("three", [1.0])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    for version in versions[:2]:
        os.kill(await pid_of(state, version), signal.SIGCONT)
    assert [faults(await call) for call in busy] == [[], []]
    assert (await predict("three", [1.0])).json()["scores"] == [1.0]


async def test_calls_wait_for_one_version_in_a_bounded_queue(keep, state, predict):
    version = await keep("slow", looping(), UNKNOWN_COST)
    runner = await runner_of(state, version)
    running = await stopped_call(state, version, predict, 2.0)
    waiting = asyncio.create_task(runner.answer({"x": [3.0]}))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await runner.answer({"x": [4.0]})
    os.kill(await pid_of(state, version), signal.SIGCONT)
    assert (await running).json()["scores"] == [2.0]
    assert (await waiting).scores == [3.0]


async def test_an_idle_process_ends_and_the_next_call_starts_another(keep, state, settings, predict):
    version = await keep("slow", looping(), UNKNOWN_COST)
    runner = await runner_of(state, version)
    runner._settings = settings.model_copy(update={"process_idle_seconds": 0.1})
    first = await pid_of(state, version)
    await until(lambda: not exists(first))
    assert (await predict("slow", [5.0])).json()["scores"] == [5.0]


async def test_processes_end_with_the_service(keep, state):
    version = await keep("slow", looping(), UNKNOWN_COST)
    pid = await pid_of(state, version)
    await state["models"].runtime.close()
    assert not exists(pid)


async def test_a_process_whose_service_is_gone_ends_by_itself(keep, state):
    version = await keep("slow", looping(), UNKNOWN_COST)
    runner = await runner_of(state, version)
    process = await runner._running()
    process._process.stdin.close()
    await until(lambda: not exists(process.pid))


async def test_a_version_of_an_earlier_release_is_measured_when_it_is_opened(keep, state, settings, predict):
    await keep("churn", small())
    folder: Path = settings.folder("inference_service") / "models"
    [record] = folder.glob("*.json")
    record.unlink()
    assert (await predict("churn", [2.5])).json()["scores"] == [2.5]
    [version] = await state["models"].versions("churn")
    assert state["models"].files.record("churn", version.version).quick


async def test_a_version_of_an_earlier_release_that_is_refused_today_says_so(keep, settings, predict):
    export = small()
    await keep("churn", export)
    folder: Path = settings.folder("inference_service") / "models"
    [record] = folder.glob("*.json")
    record.unlink()
    (folder / f"{export.version}.onnx").write_bytes(b"not ONNX")
    answer = await predict("churn", [2.5])
    assert answer.status_code == 503
    assert "is not an ONNX file" in answer.json()["detail"]


async def test_two_models_with_one_file_answer_each_by_its_own_columns(keep, client):
    export = small()
    await keep("x-model", export)
    other = replace_manifest(export, [{"name": "z", "dtype": "float"}])
    await keep("z-model", other)
    for model, name in (("x-model", "x"), ("z-model", "z"), ("x-model", "x")):
        path = f"/v1/models/{model}/versions/champion/predict"
        assert (await client.post(path, json={"inputs": {name: [1.5]}})).json()["scores"] == [1.5]


def replace_manifest(export, inputs):
    sample = {"inputs": {column["name"]: [1.0, 2.0] for column in inputs}, "scores": [1.0, 2.0]}
    return type(export)(export.onnx, {**export.manifest, "inputs": inputs}, sample)


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def exists(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
