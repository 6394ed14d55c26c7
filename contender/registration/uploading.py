"""Upload of an export to the inference service, which tries the sample again before it accepts the version."""

import json

import msgspec

from contender.contracts import inference_service as contract
from contender.contracts.inference_service import VersionDetails
from contender.registration.manifest import Export
from contender.transport import Transport
from contender.uploads import TIMEOUT_S


class RegisteredVersion(VersionDetails, frozen=True, kw_only=True):
    """A version as the service has it; `warnings` says how it treats rows unlike those of training."""

    warnings: list[str] = msgspec.field(default_factory=list)


def register(transport: Transport, model: str, export: Export) -> RegisteredVersion:
    """Upload an export.

    Raises:
        RefusedError: the service refuses; its problem details say why.
        UnreachableError: the service does not answer.
    """
    upload = {
        "onnx": ("model.onnx", export.onnx, "application/octet-stream"),
        "manifest": ("manifest.json", json.dumps(export.manifest).encode(), "application/json"),
        "sample": ("sample.json", json.dumps(export.sample, allow_nan=False).encode(), "application/json"),
    }
    transport.call("inference_service", contract.REGISTER_VERSION, files=upload, timeout_s=TIMEOUT_S, model=model)
    version = transport.call(
        "inference_service", contract.SHOW_VERSION, timeout_s=TIMEOUT_S, model=model, version=export.version
    )
    return RegisteredVersion(**msgspec.structs.asdict(version), warnings=export.warnings)
