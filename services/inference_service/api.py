"""The registry and predictions over HTTP."""

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.responses import Response
from starlette.types import Message, Receive

from contender.contracts import inference_service as contract
from contender.contracts.inference_service import ModelVersion, VersionSummary
from services.inference_service.handlers import Models
from services.inference_service.promotions import Champions
from services.inference_service.settings import InferenceSettings
from shared.errors import InvalidField, TooLarge
from shared.problems import UnsupportedMediaType
from shared.routes import Routes, json_response, json_with_etag

routes = Routes()
_PARTS = contract.VersionUpload.__struct_fields__
_BOUNDARIES_BYTES = 64 * 1024
"""Most bytes of a multipart body beside its parts."""


@routes.serve(contract.LIST_VERSIONS)
async def list_models(request: Request) -> Response:
    return json_with_etag(request, contract.VersionList(await _models(request).models()))


@routes.serve(contract.SHOW_MODEL)
async def show_model(request: Request, model: str) -> contract.ModelVersions:
    versions = await _models(request).versions(model)
    champion = next((version.version for version in versions if version.champion), None)
    return contract.ModelVersions(model, champion, versions)


@routes.serve(contract.SHOW_VERSION)
async def show_version(request: Request, model: str, version: str) -> contract.VersionDetails:
    return await _models(request).details(model, version)


@routes.serve(contract.REGISTER_VERSION)
async def register_version(request: Request, model: str) -> Response:
    models = _models(request)
    parts = await _read_parts(request, models.settings)
    version, is_new = await models.register(model, **parts)
    return json_response(_summary(version), 201 if is_new else 200)


@routes.serve(contract.DOWNLOAD_FILE)
async def download_file(request: Request, model: str, version: str) -> Response:
    content = await _models(request).file(model, version)
    return Response(content, media_type=contract.DOWNLOAD_FILE.answer_media_type)


@routes.serve(contract.SHOW_SAMPLE)
async def show_sample(request: Request, model: str, version: str) -> Response:
    return Response(await _models(request).sample(model, version), media_type=contract.SHOW_SAMPLE.answer_media_type)


@routes.serve(contract.PROMOTE_VERSION)
async def promote_version(request: Request, model: str, body: contract.Promotion) -> VersionSummary:
    return _summary(await _champions(request).promote(model, body))


@routes.serve(contract.ROLL_BACK)
async def roll_back(request: Request, model: str, body: contract.Rollback) -> VersionSummary:
    return _summary(await _champions(request).roll_back(model, body))


@routes.serve(contract.LIST_PROMOTIONS)
async def list_promotions(request: Request, model: str) -> contract.Promotions:
    return contract.Promotions(await _champions(request).promotions(model))


@routes.serve(contract.PREDICT_ROWS)
async def predict_rows(request: Request, model: str, version: str, body: contract.RowsQuestion) -> contract.ScoredRows:
    return await _models(request).answer(model, version, body.inputs)


async def _read_parts(request: Request, settings: InferenceSettings) -> dict[str, bytes]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != contract.REGISTER_VERSION.body_media_type:
        raise UnsupportedMediaType(f"content-type is {media_type or 'missing'}; send multipart/form-data")
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
    """The same body, refused once it is longer than allowed: the parser would write all of it to disk."""
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


def _champions(request: Request) -> Champions:
    champions: Champions = request.state.champions
    return champions


def _summary(version: ModelVersion) -> VersionSummary:
    alias = "champion" if version.champion else None
    return VersionSummary(version.model, version.version, alias, version.registered_at)
