"""From a fitted scikit-learn pipeline to a registered version: ONNX export, parity check, manifest, upload.

Only the ONNX file, the manifest and a sample of rows cross the wire; no pickle ever does.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import BooleanTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from contender.errors import ExportError, ParityError, RefusedError
from shared.events import ModelVersion, Task

TOLERANCE = 1e-5
"""Largest difference of a score: 32-bit boosted trees differ by 4e-7, a regression by 1e-7 (measured)."""
SAMPLE_ROWS = 500
_SEED = 0
_TENSORS = {
    "float": FloatTensorType([None, 1]),
    "integer": Int64TensorType([None, 1]),
    "string": StringTensorType([None, 1]),
    "boolean": BooleanTensorType([None, 1]),
}
_ARRAYS: dict[str, Any] = {"float": np.float32, "integer": np.int64, "string": object, "boolean": np.bool_}
_PACKAGES = ("numpy", "onnx", "onnxruntime", "pandas", "scikit-learn", "skl2onnx")


@dataclass(frozen=True)
class Export:
    """What is uploaded: an ONNX file, its manifest, and sample rows with scikit-learn's scores."""

    onnx: bytes
    manifest: dict[str, Any]
    sample: dict[str, Any]

    @property
    def version(self) -> str:
        """The version's name: the sha256 of the ONNX file."""
        return hashlib.sha256(self.onnx).hexdigest()


class Recorded(Protocol):
    """Something with a record of what it was made from, such as a `contender.training.TrainingSet`."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The record, as JSON takes it."""
        ...


def export_pipeline(
    pipeline: Any,
    columns: pd.DataFrame,
    labels: Sequence[Any] | pd.Series | None = None,
    *,
    sources: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    entities: Mapping[str, list[str]] | None = None,
    description: str = "",
    tolerance: float = TOLERANCE,
    training_set: Recorded | None = None,
) -> Export:
    """Export a fitted pipeline and check on a sample that the ONNX file answers as scikit-learn does.

    Args:
        pipeline: a fitted scikit-learn pipeline, classifier or regressor.
        columns: the frame it was fitted on, one column per input, shape (rows, inputs).
        labels: what it was fitted to, shape (rows,); only its hash enters the manifest.
        sources: `view:feature` per column that the router fetches; other columns come with the request.
        defaults: per column the value that stands in when a feature can't be had.
        entities: per join key the views it looks up; default: found out by the router.
        description: one sentence on what the version is.
        tolerance: largest accepted difference of a score, in units of the sample's largest one where that is beyond 1.
        training_set: what `columns` were taken from; its record enters the manifest.

    Raises:
        ExportError: skl2onnx can't convert the pipeline, or a column has no type in ONNX.
        ParityError: a score differs by more than `tolerance`.
    """
    _check_frame(columns, sources or {}, defaults or {})
    dtypes = {str(name): _dtype(columns[name]) for name in columns.columns}
    onnx = _convert(_taking_columns(pipeline, columns), dtypes)
    task, classes = _task(pipeline)
    chosen = np.random.default_rng(_SEED).permutation(len(columns))[:SAMPLE_ROWS]
    rows = columns.iloc[np.sort(chosen)]
    scores = _scores(pipeline, rows, task)
    # A 32-bit score carries seven digits, so that a difference counts in proportion to a regression's values.
    scale = max(1.0, float(np.max(np.abs(scores))))
    worst = float(np.max(np.abs(_onnx_scores(onnx, rows, dtypes, task) - scores))) / scale
    if not worst <= tolerance:
        raise ParityError(
            f"the ONNX file's scores differ from scikit-learn's by up to {worst:.3g} on {len(rows)} rows, "
            f"{tolerance:.3g} is accepted: a scaler in 32-bit floats before trees is the usual cause"
        )
    manifest = {
        "task": task,
        "classes": classes,
        "inputs": [_input(name, dtype, columns[name], sources or {}, defaults or {}) for name, dtype in dtypes.items()],
        "entities": dict(entities or {}),
        "description": description,
        "tolerance": tolerance,
        "parity": {"rows": len(rows), "worst": worst},
        "onnx_sha256": hashlib.sha256(onnx).hexdigest(),
        "data": _data(columns, labels),
        **({"training_set": dict(training_set.manifest)} if training_set is not None else {}),
        "parameters": {name: repr(value) for name, value in sorted(pipeline.get_params(deep=True).items())},
        "environment": _environment(),
        "code": _code(),
    }
    return Export(onnx, manifest, {"inputs": _sample(rows, dtypes), "scores": scores.tolist()})


def register(url: str, model: str, export: Export, *, timeout_s: float = 120.0) -> ModelVersion:
    """Upload an export to the inference service at `url`; the service tries the sample again before it accepts.

    Raises:
        RefusedError: the service refused; its problem details say why.
        httpx.HTTPError: the service can't be reached.
    """
    files = {
        "onnx": ("model.onnx", export.onnx, "application/octet-stream"),
        "manifest": ("manifest.json", json.dumps(export.manifest).encode(), "application/json"),
        "sample": ("sample.json", json.dumps(export.sample, allow_nan=False).encode(), "application/json"),
    }
    base = f"{url.rstrip('/')}/v1/models/{quote(model, safe='')}/versions"
    with httpx.Client(timeout=timeout_s) as client:
        _check(client.post(base, files=files))
        answer = client.get(f"{base}/{export.version}")
        _check(answer)
    return msgspec.json.decode(answer.content, type=ModelVersion)


def _check(answer: httpx.Response) -> None:
    if not answer.is_error:
        return
    try:
        problem = answer.json()
    except json.JSONDecodeError:
        problem = {}
    raise RefusedError(answer.status_code, problem.get("detail", answer.text), problem.get("errors", []))


def _check_frame(columns: pd.DataFrame, sources: Mapping[str, str], defaults: Mapping[str, Any]) -> None:
    if columns.empty:
        raise ExportError("the frame has no rows, so that nothing can be compared")
    unknown = sorted({*sources, *defaults} - set(map(str, columns.columns)))
    if unknown:
        raise ExportError(f"sources and defaults name columns that the frame does not have: {', '.join(unknown)}")


def _dtype(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    if pd.api.types.is_float_dtype(column):
        return "float"
    if pd.api.types.infer_dtype(column.astype(object), skipna=True) != "string":
        raise ExportError(f"the column {column.name} is neither number, text nor boolean: {column.dtype}")
    return "string"


def _taking_columns(estimator: Any, columns: pd.DataFrame) -> Any:
    """The estimator behind a step that puts the columns together: skl2onnx gives a bare one a single matrix."""
    if isinstance(estimator, Pipeline) or len(columns.columns) == 1:
        return estimator
    together = ColumnTransformer([("columns", "passthrough", list(columns.columns))]).fit(columns)
    return Pipeline([("together", together), ("model", estimator)])


def _convert(pipeline: Any, dtypes: Mapping[str, str]) -> bytes:
    options = {"zipmap": False} if is_classifier(pipeline) else None
    try:
        converted = convert_sklearn(
            pipeline,
            name="contender",  # else a random one, and no two exports would have the same sha256
            initial_types=[(name, _TENSORS[dtype]) for name, dtype in dtypes.items()],
            options={id(pipeline): options} if options else None,
        )
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        raise ExportError(f"the pipeline can't be exported to ONNX: {error}") from error
    content: bytes = converted.SerializeToString(deterministic=True)
    return content


def _task(pipeline: Any) -> tuple[Task, list[Any]]:
    if not is_classifier(pipeline):
        return "regression", []
    if not hasattr(pipeline, "predict_proba"):
        raise ExportError("the classifier has no predict_proba, so that it gives no scores")
    classes = [_plain(label) for label in pipeline.classes_]
    return ("binary" if len(classes) == 2 else "multiclass"), classes  # noqa: PLR2004


def _plain(value: Any) -> Any:
    """As JSON takes it."""
    return value.item() if isinstance(value, np.generic) else value


def _scores(pipeline: Any, rows: pd.DataFrame, task: Task) -> NDArray[np.float64]:
    if task == "regression":
        return np.asarray(pipeline.predict(rows), dtype=np.float64)
    probabilities = np.asarray(pipeline.predict_proba(rows), dtype=np.float64)
    return probabilities[:, -1] if task == "binary" else probabilities


def _onnx_scores(onnx: bytes, rows: pd.DataFrame, dtypes: Mapping[str, str], task: Task) -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    feed = {name: rows[name].to_numpy().astype(_ARRAYS[dtype]).reshape(-1, 1) for name, dtype in dtypes.items()}
    output = session.run(None, feed)
    if task == "regression":
        return np.asarray(output[0].reshape(-1), dtype=np.float64)
    return np.asarray(output[1][:, -1] if task == "binary" else output[1], dtype=np.float64)


def _input(
    name: str, dtype: str, column: pd.Series, sources: Mapping[str, str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    served = name in sources
    nullable = served or bool(column.isna().any())
    return {
        "name": name,
        "dtype": dtype,
        "source": sources.get(name, "request"),
        "default": _plain(defaults.get(name)),
        "required": not nullable,
    }


def _sample(rows: pd.DataFrame, dtypes: Mapping[str, str]) -> dict[str, list[Any]]:
    return {name: _nullable(rows[name], _ARRAYS[dtype]) for name, dtype in dtypes.items()}


def _nullable(column: pd.Series, dtype: type) -> list[Any]:
    values = column.fillna(0) if column.dtype.kind in "iuf" else column
    typed = values.astype(dtype).tolist()
    return [None if missing else value for value, missing in zip(typed, column.isna(), strict=True)]


def _data(columns: pd.DataFrame, labels: Sequence[Any] | pd.Series | None) -> dict[str, Any]:
    """What the version was fitted on, in its row order."""
    digest = hashlib.sha256(pd.util.hash_pandas_object(columns, index=False).to_numpy().tobytes())
    if labels is not None:
        digest.update(pd.util.hash_pandas_object(pd.Series(list(labels)), index=False).to_numpy().tobytes())
    return {"rows": len(columns), "columns": list(map(str, columns.columns)), "sha256": digest.hexdigest()}


def _environment() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = installed(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": versions}


def _code() -> dict[str, Any]:
    """The commit of the folder this runs in, and whether it had changes; nulls outside a repository."""
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": None if commit is None else bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=Path.cwd(),
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
