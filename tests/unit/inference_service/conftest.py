"""Fitted models to register, and the service with its registry in memory."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from contender.contracts.inference_service import Manifest, ModelVersion, VersionDetails
from contender.registration import Export, export_pipeline
from services.inference_service.domain.cost import TrialRecord
from services.inference_service.main import State, create_app, state_of
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import InMemoryVersionStore
from shared.clock import FixedClock
from shared.testing import client_for

NOW = 1_700_000_000.0
ROWS = 400


@dataclass(frozen=True)
class Fitted:
    """A pipeline, rows for it, and what is uploaded of it."""

    pipeline: Pipeline
    columns: pd.DataFrame
    export: Export

    def inputs(self, rows: int) -> dict[str, list[Any]]:
        """The first rows, as a caller sends them."""
        return {str(name): self.columns[name][:rows].tolist() for name in self.columns}


def _columns() -> pd.DataFrame:
    chance = np.random.default_rng(11)
    return pd.DataFrame(
        {
            "plan": chance.choice(["free", "pro", "team"], ROWS),
            "seats": chance.integers(1, 50, ROWS),
            "usage": chance.normal(100, 30, ROWS),
            "trial": chance.random(ROWS) < 0.3,
        }
    )


def _fit(model: Any, label: Callable[["pd.Series[float]"], Any]) -> Fitted:
    columns = _columns()
    labels = label(columns["seats"] * 3.0 + columns["usage"])
    encode = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["plan"]),
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["usage"]),
            ("whole", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["seats"]),
            ("as it is", "passthrough", ["trial"]),
        ]
    )
    pipeline = Pipeline([("encode", encode), ("model", model)]).fit(columns, labels)
    return Fitted(pipeline, columns, export_pipeline(pipeline, columns, labels, description="a model"))


@pytest.fixture(scope="session")
def churn() -> Fitted:
    return _fit(LogisticRegression(max_iter=1000), lambda amount: np.where(amount > 175, "stays", "leaves"))


@pytest.fixture(scope="session")
def later_churn() -> Fitted:
    return _fit(LogisticRegression(max_iter=1000, C=0.01), lambda amount: np.where(amount > 175, "stays", "leaves"))


@pytest.fixture(scope="session")
def tier() -> Fitted:
    return _fit(LogisticRegression(max_iter=1000), lambda amount: np.digitize(amount, [150, 200]))


@pytest.fixture(scope="session")
def price() -> Fitted:
    return _fit(LinearRegression(), lambda amount: amount)


@pytest.fixture
def settings(tmp_path: Path) -> InferenceSettings:
    size = 64 * 1024
    return InferenceSettings(
        data=tmp_path,
        row_limit=500,
        text_limit=20,
        model_limit_bytes=size,
        manifest_limit_bytes=size,
        sample_limit_bytes=size,
        body_limit_bytes=size,
    )


@pytest.fixture
async def state(settings: InferenceSettings) -> AsyncIterator[State]:
    state = state_of(settings, InMemoryVersionStore(), FixedClock(NOW))
    yield state
    await state["models"].runtime.close()


@pytest.fixture
async def client(settings: InferenceSettings, state: State) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def resources(_: InferenceSettings) -> AsyncIterator[State]:
        yield state

    async with client_for(create_app(settings, resources)) as client:
        yield client


Upload = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def upload(client: httpx.AsyncClient) -> Upload:
    """Upload a version's three parts, some of them changed; a part that is None is left out."""

    async def post(export: Export, model: str = "churn", **changed: Any) -> httpx.Response:
        parts = {"onnx": export.onnx, "manifest": export.manifest, "sample": export.sample, **changed}
        files = {
            name: part if isinstance(part, bytes) else json.dumps(part).encode()
            for name, part in parts.items()
            if part is not None
        }
        return await client.post(f"/v1/models/{model}/versions", files=files)

    return post


Keep = Callable[..., Awaitable[ModelVersion]]
QUICK = TrialRecord(bounded=True, opening_ms=1.0, row_ms=0.01)
"""What a trial finds of a model that may run in the web process."""


@pytest.fixture
def keep(state: State) -> Keep:
    """Put a version into the registry without a trial run; by its record it runs in the web process."""

    async def add(model: str, export: Export, record: TrialRecord | None = None) -> ModelVersion:
        known = msgspec.convert(export.manifest, Manifest)
        version = ModelVersion(
            model=model,
            version=export.version,
            task=known.task,
            classes=known.classes,
            inputs=known.inputs,
            registered_at=NOW,
        )
        reference = {name: values[0] for name, values in export.sample["inputs"].items()}
        files = state["models"].files
        files.write(export.version, export.onnx)
        files.write_record(model, export.version, record or replace(QUICK, reference=reference))
        await state["models"].store.add(VersionDetails.of(version, dict(export.manifest)))
        return version

    return add
