"""The Open Inference Protocol, version 2, in JSON: what KServe and Triton clients speak."""

import math
from collections.abc import Sequence

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from services.inference_service.handlers import CHAMPION, Models
from shared.events import InputColumn, ModelVersion, Scalar
from shared.http import json_response, read_body
from shared.problems import Problem

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
_DATATYPES = {"float": "FP32", "integer": "INT64", "string": "BYTES", "boolean": "BOOL"}
_ACCEPTED = {
    "float": {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64"},
    "integer": {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"},
    "string": {"BYTES"},
    "boolean": {"BOOL"},
}


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named tensor; `data` is flat or nested, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[object] = []
    parameters: dict[str, object] = {}


class InferRequest(msgspec.Struct, frozen=True):
    """A request to infer; every input is one column of shape [rows] or [rows, 1]."""

    inputs: list[Tensor]
    id: str = ""
    outputs: list[dict[str, object]] = []
    parameters: dict[str, object] = {}


class OpenInferenceError(Exception):
    """An error in the protocol's own form: `{"error": "..."}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def render_error(_: Request, error: Exception) -> Response:
    """Exception handler for OpenInferenceError."""
    if not isinstance(error, OpenInferenceError):
        raise error
    return json_response({"error": str(error)}, error.status)


@router.get("")
async def server_metadata() -> Response:
    """Name and version of the server."""
    return json_response({"name": "contender", "version": "0.1.0", "extensions": []})


@router.get("/health/live")
async def server_live() -> Response:
    """The server lives."""
    return json_response({"live": True})


@router.get("/health/ready")
async def server_ready(request: Request) -> Response:
    """The registry can be read."""
    await _models(request).models()
    return json_response({"ready": True})


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready", name="version_ready")
async def model_ready(request: Request, model: str, version: str = CHAMPION) -> Response:
    """The version can answer."""
    found = await _version(request, model, version)
    return json_response({"name": model, "ready": True, "version": found.version})


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}", name="version_metadata")
async def model_metadata(request: Request, model: str, version: str = CHAMPION) -> Response:
    """Inputs and outputs of a version."""
    found = await _version(request, model, version)
    versions = await _models(request).versions(model)
    inputs = [{"name": c.name, "datatype": _DATATYPES[c.dtype], "shape": [-1, 1]} for c in found.inputs]
    width = len(found.classes) if found.task == "multiclass" else 1
    outputs = [{"name": "scores", "datatype": "FP64", "shape": [-1, width]}]
    return json_response(
        {
            "name": model,
            "versions": [one.version for one in versions],
            "platform": "onnxruntime_onnx",
            "inputs": inputs,
            "outputs": outputs,
        }
    )


@router.post("/models/{model}/infer")
@router.post("/models/{model}/versions/{version}/infer", name="version_infer")
async def infer(request: Request, model: str, version: str = CHAMPION) -> Response:
    """Scores of rows."""
    models = _models(request)
    found = await _version(request, model, version)
    try:
        wanted = await read_body(request, InferRequest, models.settings.body_limit_bytes)
        answers = await models.answer(model, found.version, _columns(found.inputs, wanted.inputs))
    except Problem as problem:
        raise OpenInferenceError(problem.status, problem.detail) from problem
    rows = len(answers.scores)
    flat = [value for row in answers.scores for value in (row if isinstance(row, list) else [row])]
    shape = [rows, len(flat) // rows]
    outputs = [{"name": "scores", "shape": shape, "datatype": "FP64", "data": flat}]
    return json_response({"model_name": model, "model_version": found.version, "id": wanted.id, "outputs": outputs})


def _columns(schema: Sequence[InputColumn], tensors: Sequence[Tensor]) -> dict[str, list[Scalar]]:
    types = {column.name: column.dtype for column in schema}
    columns: dict[str, list[Scalar]] = {}
    for tensor in tensors:
        dtype = types.get(tensor.name)
        if dtype is not None and tensor.datatype not in _ACCEPTED[dtype]:
            raise OpenInferenceError(
                400, f"input {tensor.name} has datatype {tensor.datatype}, not {_DATATYPES[dtype]}"
            )
        flat = _flat(tensor.data)
        if any(size < 0 for size in tensor.shape) or math.prod(tensor.shape) != len(flat):
            raise OpenInferenceError(400, f"input {tensor.name} has {len(flat)} values, its shape says {tensor.shape}")
        if len(tensor.shape) > 1 and math.prod(tensor.shape[1:]) != 1:
            raise OpenInferenceError(400, f"input {tensor.name} is not one column: its shape is {tensor.shape}")
        columns[tensor.name] = flat
    return columns


def _flat(data: Sequence[object]) -> list[Scalar]:
    flat: list[Scalar] = []
    for value in data:
        for inner in value if isinstance(value, list) else [value]:
            if not (inner is None or isinstance(inner, bool | int | float | str)):
                raise OpenInferenceError(400, "data is nested deeper than rows of one column")
            flat.append(inner)
    return flat


async def _version(request: Request, model: str, version: str) -> ModelVersion:
    try:
        return await _models(request).version(model, version)
    except Problem as problem:
        raise OpenInferenceError(problem.status, problem.detail) from problem


def _models(request: Request) -> Models:
    models: Models = request.state.models
    return models
