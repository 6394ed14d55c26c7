"""The upload of a model version: three files, which make the same version wherever they are registered."""

import msgspec

from contender.contracts.operation import JSON

TIMEOUT_S = 120.0
"""Longest wait for a registration: uploads wait for each other's trials."""
Upload = dict[str, tuple[str, bytes, str]]
"""File name, content and media type by the name of the part."""


def upload_of(onnx: bytes, manifest: object, sample: object) -> Upload:
    """The upload of an ONNX file with its manifest and its sample, which are written as JSON."""
    return {
        "onnx": ("model.onnx", onnx, "application/octet-stream"),
        "manifest": ("manifest.json", msgspec.json.encode(manifest), JSON),
        "sample": ("sample.json", msgspec.json.encode(sample), JSON),
    }
