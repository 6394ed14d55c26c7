"""Upload of an export to the inference service, which tries the sample again before it accepts the version."""

import json
from urllib.parse import quote

import httpx
import msgspec

from contender.contracts.inference_service import ModelVersion
from contender.errors import RefusedError
from contender.registration.exporting import Export


class RegisteredVersion(ModelVersion, frozen=True, kw_only=True):
    """A version as the service has it, and what it does with rows that training had none of."""

    warnings: list[str] = msgspec.field(default_factory=list)


def register(url: str, model: str, export: Export, *, timeout_s: float = 120.0) -> RegisteredVersion:
    """Upload an export to the inference service at `url`.

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
        for answer in (client.post(base, files=files), client.get(f"{base}/{export.version}")):
            if answer.is_error:
                raise RefusedError.of(answer)
    registered = msgspec.json.decode(answer.content, type=RegisteredVersion)
    return msgspec.structs.replace(registered, warnings=export.warnings)
