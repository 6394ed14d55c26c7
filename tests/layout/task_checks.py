"""Run in a copy of the packages that has the task `several`: registration, sessions and the service know it."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import contender
from contender.contracts.tasks import TASKS, fitting_task, task_named
from contender.registration import Export, export_file, export_pipeline
from services.inference_service.main import State, create_app, state_of
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import InMemoryVersionStore
from shared.clock import FixedClock
from shared.events import PredictionBlock
from shared.testing import client_for

NAME = "several"
ROWS = np.random.default_rng(1).normal(size=(60, 2))
TARGETS = np.column_stack([ROWS @ [1.0, 2.0], ROWS @ [3.0, -1.0], ROWS[:, 0]])
FITTED = LinearRegression().fit(ROWS, TARGETS)


def exported() -> Export:
    """Registration infers the task and compares all outputs; a ready file names it."""
    export = export_pipeline(FITTED, ROWS)
    assert (export.manifest["task"], export.manifest["classes"], export.manifest["label_output"]) == (NAME, [], "")
    assert np.allclose(export.sample["scores"], FITTED.predict(np.column_stack(list(export.sample["inputs"].values()))))
    ready = export_file(export.onnx, pd.DataFrame(ROWS, columns=["c0", "c1"]), task=NAME)
    assert ready.manifest["task"] == NAME
    return export


async def serve(export: Export, folder: Path) -> None:
    """The trial accepts the version, and both protocols answer with all outputs."""
    settings = InferenceSettings(data=folder)
    state = state_of(settings, InMemoryVersionStore(), FixedClock(1.0))

    @asynccontextmanager
    async def resources(_: InferenceSettings) -> AsyncIterator[State]:
        yield state
        await state["models"].runtime.close()

    async with client_for(create_app(settings, resources)) as client:
        parts = {"onnx": export.onnx, "manifest": export.manifest, "sample": export.sample}
        files = {name: part if isinstance(part, bytes) else json.dumps(part) for name, part in parts.items()}
        registered = await client.post("/v1/models/m/versions", files=files)
        assert registered.status_code == 201, registered.text
        await answers(client)


async def answers(client: httpx.AsyncClient) -> None:
    columns = {f"x{number}": ROWS[:5, number].tolist() for number in range(2)}
    answer = (await client.post("/v1/models/m/versions/champion/predict", json={"inputs": columns})).json()
    assert np.allclose(answer["scores"], TARGETS[:5])
    assert answer["labels"] == pytest.approx(TARGETS[:5, 0])
    tensors = [{"name": name, "datatype": "FP64", "shape": [5], "data": values} for name, values in columns.items()]
    [output] = (await client.post("/v2/models/m/infer", json={"inputs": tensors})).json()["outputs"]
    assert output["shape"] == [5, 3]


def labels_are_checked() -> None:
    task = task_named(NAME)
    assert TASKS[0] is task
    assert fitting_task(0, 3) is task
    assert fitting_task(0).name == "regression"
    block = {"model": "m", "version": "v", "task": NAME, "unit": ["u"], "time": [1.0], "score": [[1.0, 2.0]]}
    read = msgspec.convert(block, PredictionBlock)
    assert task.score_fault(list(read.score), 0) == ""
    assert task.score_fault([1.0], 0)
    assert (task.outcome_value(2, []), task.outcome_value("two", [])) == (2.0, None)


if __name__ == "__main__":
    assert Path(contender.__file__).is_relative_to(Path.cwd()), contender.__file__
    labels_are_checked()
    asyncio.run(serve(exported(), Path.cwd() / "data"))
    sys.stdout.write("several numbers are served\n")
