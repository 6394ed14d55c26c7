"""The inference service's calls of the Open Inference Protocol 2 in JSON, which KServe and Triton clients send.

The protocol names a model with or without its version: each is an operation of its own, and without one the champion
answers. Every error is `{"error": "..."}`.
"""

from dataclasses import replace
from typing import Any

import msgspec

from contender.contracts.inference_service import (
    REGISTRY_UNAVAILABLE,
    UNKNOWN_MODEL,
    UNKNOWN_VERSION,
    UNREADABLE_VERSION,
    VERSION_UNAVAILABLE,
)
from contender.contracts.operation import JSON, Operation
from contender.contracts.problems import OVERLOADED


class ProtocolError(msgspec.Struct, frozen=True):
    """The answer to a call that is refused or can't be answered."""

    error: str


class ServerMetadata(msgspec.Struct, frozen=True):
    """The server's name, release, and extensions of the protocol."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(msgspec.Struct, frozen=True):
    """The server is running."""

    live: bool


class ServerReady(msgspec.Struct, frozen=True):
    """The server can read its registry."""

    ready: bool


class ModelReady(msgspec.Struct, frozen=True):
    """The version can answer."""

    name: str
    ready: bool
    version: str


class TensorMetadata(msgspec.Struct, frozen=True):
    """A tensor's name, datatype and shape; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True):
    """A model's versions, and the tensors of the one that was asked for."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Tensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named tensor; `data` is flat or nested, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] = []
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that the caller asks for; the only one is `scores`."""

    name: str
    parameters: dict[str, Any] = {}


class InferenceRequest(msgspec.Struct, frozen=True):
    """Rows to score; every input is one column of shape [rows] or [rows, 1]."""

    inputs: list[Tensor]
    id: str = ""
    outputs: list[RequestedOutput] = []
    parameters: dict[str, Any] = {}


class InferenceAnswer(msgspec.Struct, frozen=True):
    """The scores of all rows, as one tensor; `id` is the request's."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]


_TAG = "open inference protocol"
_VERSION = "0c912f6d1ab4e15f7a7f3a54d0b1ce2285d4f9c1a1de6f6b2f7f4f3d9a7b8e60"
_PLAN: dict[str, Any] = {"name": "plan", "datatype": "BYTES", "shape": [-1, 1]}
_SCORES: dict[str, Any] = {"name": "scores", "datatype": "FP64", "shape": [-1, 1]}
_MODEL_PROBLEMS = (UNKNOWN_MODEL, UNKNOWN_VERSION, UNREADABLE_VERSION, REGISTRY_UNAVAILABLE)

SERVER_METADATA = Operation(
    "server_metadata",
    "GET",
    "/v2",
    "Gives the server's name and release.",
    ServerMetadata,
    error=ProtocolError,
    error_media_type=JSON,
    tag=_TAG,
    answer_example={"name": "contender", "version": "0.1.0", "extensions": []},
)
SERVER_LIVE = Operation(
    "server_live",
    "GET",
    "/v2/health/live",
    "Says that the server is running.",
    ServerLive,
    error=ProtocolError,
    error_media_type=JSON,
    tag=_TAG,
    answer_example={"live": True},
)
SERVER_READY = Operation(
    "server_ready",
    "GET",
    "/v2/health/ready",
    "Says that the server can read its registry.",
    ServerReady,
    problems=(REGISTRY_UNAVAILABLE,),
    error=ProtocolError,
    error_media_type=JSON,
    tag=_TAG,
    answer_example={"ready": True},
)
MODEL_READY = Operation(
    "model_ready",
    "GET",
    "/v2/models/{model}/ready",
    "Says that the champion can answer.",
    ModelReady,
    problems=_MODEL_PROBLEMS,
    error=ProtocolError,
    error_media_type=JSON,
    tag=_TAG,
    answer_example={"name": "churn", "ready": True, "version": _VERSION},
)
VERSION_READY = replace(
    MODEL_READY,
    id="version_ready",
    path="/v2/models/{model}/versions/{version}/ready",
    summary="Says that a version can answer.",
)
MODEL_METADATA = Operation(
    "model_metadata",
    "GET",
    "/v2/models/{model}",
    "Describes the champion's inputs and outputs.",
    ModelMetadata,
    problems=_MODEL_PROBLEMS,
    error=ProtocolError,
    error_media_type=JSON,
    tag=_TAG,
    answer_example={
        "name": "churn",
        "versions": [_VERSION],
        "platform": "onnxruntime_onnx",
        "inputs": [_PLAN],
        "outputs": [_SCORES],
    },
)
VERSION_METADATA = replace(
    MODEL_METADATA,
    id="version_metadata",
    path="/v2/models/{model}/versions/{version}",
    summary="Describes a version's inputs and outputs.",
)
INFER = Operation(
    "infer",
    "POST",
    "/v2/models/{model}/infer",
    "Scores rows by the champion; a row without a score refuses all of them.",
    InferenceAnswer,
    body=InferenceRequest,
    problems=(*_MODEL_PROBLEMS, VERSION_UNAVAILABLE, OVERLOADED),
    error=ProtocolError,
    error_media_type=JSON,
    tag=_TAG,
    body_example={"inputs": [{**_PLAN, "shape": [1], "data": ["pro"]}]},
    answer_example={
        "model_name": "churn",
        "model_version": _VERSION,
        "id": "",
        "outputs": [{**_SCORES, "shape": [1, 1], "data": [0.31]}],
    },
)
VERSION_INFER = replace(
    INFER,
    id="version_infer",
    path="/v2/models/{model}/versions/{version}/infer",
    summary="Scores rows by a version; a row without a score refuses all of them.",
)
