"""The Open Inference Protocol, version 2, in JSON: what KServe and Triton clients speak."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from contender.contracts.inference_service import InputColumn, RowFault
from contender.contracts.values import Scalar
from services.inference_service.handlers import CHAMPION, Models
from shared.bodies import decode_json, read_body, read_bytes
from shared.errors import ServiceError, TooLarge, Unavailable, shortened
from shared.problems import BadRequest, UnsupportedMediaType
from shared.routes import json_response

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
_SCORES = "scores"
_MOST_DIMENSIONS = 2
_UNAVAILABLE = 503
_DATATYPES = {"float": "FP64", "integer": "INT64", "string": "BYTES", "boolean": "BOOL"}
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


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that the caller wants; scores is the one there is."""

    name: str
    parameters: dict[str, object] = {}


class InferRequest(msgspec.Struct, frozen=True):
    """A request to infer; every input is one column of shape [rows] or [rows, 1]."""

    inputs: list[Tensor]
    id: str = ""
    outputs: list[RequestedOutput] = []
    parameters: dict[str, object] = {}


def render_errors(app: FastAPI) -> None:
    """Answer every error under /v2 in the protocol's own form, `{"error": "..."}`, whoever raised it."""
    for kind in (ServiceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _in_protocol(app.exception_handlers[kind]))


def _in_protocol(render: Callable[[Request, Any], Any]) -> Callable[[Request, Any], Awaitable[Response]]:
    async def render_either(request: Request, error: Exception) -> Response:
        answer: Response = await render(request, error)
        if not f"{request.url.path}/".startswith("/v2/"):
            return answer
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        detail = msgspec.json.decode(answer.body)["detail"]
        return json_response({"error": detail}, answer.status_code, headers)

    return render_either


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
    """The registry can be read; 503 when not."""
    await _models(request).models()
    return json_response({"ready": True})


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready", name="version_ready")
async def model_ready(request: Request, model: str, version: str = CHAMPION) -> Response:
    """The version can answer."""
    found = await _models(request).version(model, version)
    return json_response({"name": model, "ready": True, "version": found.version})


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}", name="version_metadata")
async def model_metadata(request: Request, model: str, version: str = CHAMPION) -> Response:
    """Inputs and outputs of a version."""
    found = await _models(request).version(model, version)
    versions = await _models(request).versions(model)
    inputs = [{"name": c.name, "datatype": _DATATYPES[c.dtype], "shape": [-1, 1]} for c in found.inputs]
    width = len(found.classes) if found.task == "multiclass" else 1
    outputs = [{"name": _SCORES, "datatype": "FP64", "shape": [-1, width]}]
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
    found = await models.version(model, version)
    wanted = await _read_request(request, models.settings.body_limit_bytes)
    for output in wanted.outputs:
        if output.name != _SCORES:
            raise BadRequest(f"there is no output {shortened(output.name)}, only {_SCORES}")
    columns = _columns(found.inputs, wanted.inputs, models.settings.row_limit)
    answers = await models.answer(model, found.version, columns)
    _refuse_faults(answers.errors)
    rows = len(answers.scores)
    flat = [value for row in answers.scores for value in (row if isinstance(row, list) else [row])]
    shape = [rows, len(flat) // rows]
    outputs = [{"name": _SCORES, "shape": shape, "datatype": "FP64", "data": flat}]
    return json_response({"model_name": model, "model_version": found.version, "id": wanted.id, "outputs": outputs})


def _refuse_faults(faults: Sequence[RowFault]) -> None:
    """The protocol has one answer for all rows: refuse them where one has no score, and name it."""
    if faults:
        fault = faults[0]
        message = f"row {fault.row}: {fault.field} {fault.message}"
        raise BadRequest(message) if fault.status < _UNAVAILABLE else Unavailable(message)


async def _read_request(request: Request, limit_bytes: int) -> InferRequest:
    if "inference-header-content-length" in request.headers:
        raise UnsupportedMediaType("binary tensors are not read here: send JSON (in tritonclient: binary_data=False)")
    if "content-type" in request.headers:
        return await read_body(request, InferRequest, limit_bytes)
    return decode_json(await read_bytes(request, limit_bytes), InferRequest)  # tritonclient names no content type


def _columns(schema: Sequence[InputColumn], tensors: Sequence[Tensor], row_limit: int) -> dict[str, list[Scalar]]:
    types = {column.name: column.dtype for column in schema}
    columns: dict[str, list[Scalar]] = {}
    for tensor in tensors:
        name = shortened(tensor.name)
        if tensor.name in columns:
            raise BadRequest(f"input {name} is given twice")
        dtype = types.get(tensor.name)
        if dtype is not None and tensor.datatype not in _ACCEPTED[dtype]:
            raise BadRequest(f"input {name} has datatype {shortened(tensor.datatype)}, not {_DATATYPES[dtype]}")
        columns[tensor.name] = _flat(tensor.data)
        _check_shape(name, tensor.shape, len(columns[tensor.name]), row_limit)
    return columns


def _check_shape(name: str, shape: list[int], values: int, row_limit: int) -> None:
    """Refuse a shape that is not [rows] or [rows, 1]; its sizes may be any integers, as long as they like."""
    if len(shape) > _MOST_DIMENSIONS:
        raise BadRequest(f"input {name} is not one column: its shape has {len(shape)} dimensions")
    if any(size > row_limit for size in shape):
        raise TooLarge(f"the shape of input {name} says more rows than at most {row_limit} that are answered at once")
    if any(size < 0 for size in shape):
        raise BadRequest(f"input {name} has {values} values, its shape a size below 0")
    if math.prod(shape) != values:
        raise BadRequest(f"input {name} has {values} values, its shape says {shape}")
    if shape[1:] not in ([], [1]):
        raise BadRequest(f"input {name} is not one column: its shape is {shape}")


def _flat(data: Sequence[object]) -> list[Scalar]:
    flat: list[Scalar] = []
    for value in data:
        for inner in value if isinstance(value, list) else [value]:
            if not (inner is None or isinstance(inner, bool | int | float | str)):
                raise BadRequest("data is nested deeper than rows of one column")
            flat.append(inner)
    return flat


def _models(request: Request) -> Models:
    models: Models = request.state.models
    return models
