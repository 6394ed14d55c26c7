"""The registry and predictions over HTTP."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, File, Request, UploadFile
from starlette.responses import Response

from services.inference_service.handlers import Models
from shared.events import ModelVersion, Scalar
from shared.http import json_response, read_body
from shared.problems import TooLarge

router = APIRouter(prefix="/v1/models", tags=["models"])


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


@router.post("/{model}/versions", status_code=201)
async def register_version(
    request: Request,
    model: str,
    onnx: Annotated[UploadFile, File()],
    manifest: Annotated[UploadFile, File()],
    sample: Annotated[UploadFile, File()],
) -> Response:
    """Register a version: its ONNX file, its manifest, and sample rows with scikit-learn's own scores."""
    models = _models(request)
    limit = models.settings.model_limit_bytes
    parts = [await part.read(limit + 1) for part in (onnx, manifest, sample)]
    if any(len(part) > limit for part in parts):
        raise TooLarge(f"a part of the upload is larger than {limit} bytes")
    version, added = await models.register(model, *parts)
    return json_response(_summary(version), 201 if added else 200)


@router.put("/{model}/aliases/champion")
async def promote_version(request: Request, model: str) -> Response:
    """Make a version the champion."""
    models = _models(request)
    alias = await read_body(request, Alias, models.settings.body_limit_bytes)
    return json_response(_summary(await models.promote(model, alias.version)))


@router.post("/{model}/versions/{version}/predict")
async def predict_rows(request: Request, model: str, version: str) -> Response:
    """Scores and labels of rows given by column."""
    models = _models(request)
    rows = await read_body(request, Rows, models.settings.body_limit_bytes)
    answers = await models.answer(model, version, rows.inputs)
    return json_response({"scores": answers.scores, "labels": answers.labels})


def _models(request: Request) -> Models:
    models: Models = request.state.models
    return models


def _summary(version: ModelVersion) -> dict[str, object]:
    alias = "champion" if version.champion else None
    return {"model": version.model, "version": version.version, "alias": alias, "registered_at": version.registered_at}
