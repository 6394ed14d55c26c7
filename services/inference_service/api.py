"""The registry and predictions over HTTP."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response
from starlette.types import Message, Receive

from contender.contracts.inference_service import ModelVersion
from contender.contracts.values import Scalar
from services.inference_service.handlers import Models
from services.inference_service.settings import InferenceSettings
from shared.bodies import read_body
from shared.errors import InvalidField, TooLarge
from shared.problems import UnsupportedMediaType
from shared.routes import json_response

router = APIRouter(prefix="/v1/models", tags=["models"])
_PARTS = ("onnx", "manifest", "sample")
_FILE = {"type": "string", "format": "binary"}
_UPLOAD: dict[str, Any] = {"type": "object", "required": list(_PARTS), "properties": dict.fromkeys(_PARTS, _FILE)}
_UPLOAD_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}}
_BOUNDARIES_BYTES = 64 * 1024
"""What a multipart body holds beside its parts, at most."""


class Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows by column; all columns are equally long."""

    inputs: dict[str, list[Scalar]]


class Alias(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which version an alias shall name."""

    version: str


@router.get("")
async def list_models(request: Request) -> Response:
    """Every version of every model."""
    return json_response({"versions": await _models(request).models()})


@router.get("/{model}")
async def show_model(request: Request, model: str) -> Response:
    """A model's versions, oldest first, and its champion."""
    versions = await _models(request).versions(model)
    champion = next((version.version for version in versions if version.champion), None)
    return json_response({"model": model, "champion": champion, "versions": versions})


@router.get("/{model}/versions/{version}")
async def show_version(request: Request, model: str, version: str) -> Response:
    """A version with its manifest; `champion` names the one that is."""
    return json_response(await _models(request).version(model, version))


@router.post("/{model}/versions", status_code=201, openapi_extra=_UPLOAD_BODY)
async def register_version(request: Request, model: str) -> Response:
    """Register a version: its ONNX file, its manifest, and sample rows with scikit-learn's own scores."""
    models = _models(request)
    parts = await _read_parts(request, models.settings)
    version, added = await models.register(model, **parts)
    return json_response(_summary(version), 201 if added else 200)


@router.put("/{model}/aliases/champion")
async def promote_version(request: Request, model: str) -> Response:
    """Make a version the champion."""
    models = _models(request)
    alias = await read_body(request, Alias, models.settings.body_limit_bytes)
    return json_response(_summary(await models.promote(model, alias.version)))


@router.post("/{model}/versions/{version}/predict")
async def predict_rows(request: Request, model: str, version: str) -> Response:
    """Scores and labels of rows given by column; `errors` says why a row has none."""
    models = _models(request)
    rows = await read_body(request, Rows, models.settings.body_limit_bytes)
    return json_response(await models.answer(model, version, rows.inputs))


async def _read_parts(request: Request, settings: InferenceSettings) -> dict[str, bytes]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise UnsupportedMediaType(f"content-type is {media_type or 'missing'}; this reads multipart/form-data")
    limits = {
        "onnx": settings.model_limit_bytes,
        "manifest": settings.manifest_limit_bytes,
        "sample": settings.sample_limit_bytes,
    }
    upload = Request(request.scope, _limited(request.receive, sum(limits.values()) + _BOUNDARIES_BYTES))
    async with upload.form(max_files=len(_PARTS), max_fields=len(_PARTS), max_part_size=max(limits.values())) as form:
        parts = {}
        for name, limit_bytes in limits.items():
            part = form.get(name)
            if part is None:
                raise InvalidField.at(name, "is missing from the upload")
            parts[name] = await part.read(limit_bytes + 1) if isinstance(part, UploadFile) else part.encode()
            if len(parts[name]) > limit_bytes:
                raise TooLarge.at(name, f"is larger than {limit_bytes} bytes")
    return parts


def _limited(receive: Receive, limit_bytes: int) -> Receive:
    """The same body, given up where it is longer than allowed: the parser would write all of it to disk."""
    size = 0

    async def receive_counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit_bytes:
            raise TooLarge.at("body", f"is larger than {limit_bytes} bytes")
        return message

    return receive_counted


def _models(request: Request) -> Models:
    models: Models = request.state.models
    return models


def _summary(version: ModelVersion) -> dict[str, object]:
    alias = "champion" if version.champion else None
    return {"model": version.model, "version": version.version, "alias": alias, "registered_at": version.registered_at}
