"""The Open Inference Protocol, version 2, in JSON: what KServe and Triton clients speak."""

import math
from collections.abc import Sequence

from fastapi import FastAPI, Request

from contender.contracts import open_inference as contract
from contender.contracts.inference_service import InputColumn, RowFault
from contender.contracts.open_inference import InferenceRequest, ProtocolError, Tensor, TensorMetadata
from contender.contracts.release import release
from contender.contracts.tasks import task_named
from contender.contracts.values import Scalar
from services.inference_service.handlers import CHAMPION, Models
from shared.bodies import decode_json, read_body, read_bytes
from shared.errors import TooLarge, Unavailable, shortened
from shared.problems import BadRequest, UnsupportedMediaType
from shared.protocol_errors import render_in_protocol
from shared.routes import Routes

routes = Routes()
_SCORES = "scores"
_MOST_DIMENSIONS = 2
_DATATYPES = {"float": "FP64", "integer": "INT64", "string": "BYTES", "boolean": "BOOL"}
_ACCEPTED = {
    "float": {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64"},
    "integer": {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"},
    "string": {"BYTES"},
    "boolean": {"BOOL"},
}


def render_errors(app: FastAPI) -> None:
    """Answer every error under /v2 in the protocol's own form, `{"error": "..."}`, whatever raised it."""
    render_in_protocol(app, "/v2/", lambda _, problem: ProtocolError(problem.detail))


@routes.serve(contract.SERVER_METADATA)
async def server_metadata(_: Request) -> contract.ServerMetadata:
    return contract.ServerMetadata("contender", release(), [])


@routes.serve(contract.SERVER_LIVE)
async def server_live(_: Request) -> contract.ServerLive:
    return contract.ServerLive(live=True)


@routes.serve(contract.SERVER_READY)
async def server_ready(request: Request) -> contract.ServerReady:
    await _models(request).models()
    return contract.ServerReady(ready=True)


@routes.serve(contract.MODEL_READY)
@routes.serve(contract.VERSION_READY)
async def model_ready(request: Request, model: str, version: str = CHAMPION) -> contract.ModelReady:
    registered = await _models(request).version(model, version)
    return contract.ModelReady(model, ready=True, version=registered.version)


@routes.serve(contract.MODEL_METADATA)
@routes.serve(contract.VERSION_METADATA)
async def model_metadata(request: Request, model: str, version: str = CHAMPION) -> contract.ModelMetadata:
    registered = await _models(request).version(model, version)
    versions = await _models(request).versions(model)
    inputs = [TensorMetadata(column.name, _DATATYPES[column.dtype], [-1, 1]) for column in registered.inputs]
    width = task_named(registered.task).score_width(len(registered.classes))
    outputs = [TensorMetadata(_SCORES, "FP64", [-1, width])]
    return contract.ModelMetadata(model, [known.version for known in versions], "onnxruntime_onnx", inputs, outputs)


@routes.serve(contract.INFER, reads_body=False)
@routes.serve(contract.VERSION_INFER, reads_body=False)
async def infer(request: Request, model: str, version: str = CHAMPION) -> contract.InferenceAnswer:
    models = _models(request)
    registered = await models.version(model, version)
    question = await _read_request(request, models.settings.body_limit_bytes)
    for output in question.outputs:
        if output.name != _SCORES:
            raise BadRequest(f"there is no output {shortened(output.name)}, only {_SCORES}")
    columns = _columns(registered.inputs, question.inputs, models.settings.row_limit)
    answers = await models.answer(model, registered.version, columns)
    _refuse_faults(answers.errors)
    rows = len(answers.scores)
    flat: list[float | None] = [value for row in answers.scores for value in (row if isinstance(row, list) else [row])]
    scores = Tensor(_SCORES, [rows, len(flat) // rows], "FP64", flat)
    return contract.InferenceAnswer(model, registered.version, question.id, [scores])


def _refuse_faults(faults: Sequence[RowFault]) -> None:
    """Refuse all rows where one has no score, and name it: the protocol has a single answer for them."""
    if faults:
        fault = faults[0]
        message = f"row {fault.row}: {fault.field} {fault.message}"
        raise Unavailable(message) if fault.is_temporary else BadRequest(message)


async def _read_request(request: Request, limit_bytes: int) -> InferenceRequest:
    if "inference-header-content-length" in request.headers:
        raise UnsupportedMediaType("binary tensors are not read here: send JSON (in tritonclient: binary_data=False)")
    if "content-type" in request.headers:
        return await read_body(request, InferenceRequest, limit_bytes)
    return decode_json(await read_bytes(request, limit_bytes), InferenceRequest)  # tritonclient sends no content type


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
    """Refuse a shape that is not [rows] or [rows, 1]; its sizes may be integers of any length."""
    if len(shape) > _MOST_DIMENSIONS:
        raise BadRequest(f"input {name} is not one column: its shape has {len(shape)} dimensions")
    if any(size > row_limit for size in shape):
        raise TooLarge(f"input {name} has more rows than the {row_limit} allowed in one request")
    if any(size < 0 for size in shape):
        raise BadRequest(f"input {name} has a shape with a size below 0")
    if math.prod(shape) != values:
        raise BadRequest(f"input {name} has {values} values, which do not fit its shape {shape}")
    if shape[1:] not in ([], [1]):
        raise BadRequest(f"input {name} is not one column: its shape is {shape}")


def _flat(data: Sequence[object]) -> list[Scalar]:
    flat: list[Scalar] = []
    for value in data:
        for inner in value if isinstance(value, list) else [value]:
            if not (inner is None or isinstance(inner, bool | int | float | str)):
                raise BadRequest("data is nested deeper than a list of rows of one value each")
            flat.append(inner)
    return flat


def _models(request: Request) -> Models:
    models: Models = request.state.models
    return models
