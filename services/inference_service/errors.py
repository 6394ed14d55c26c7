"""What the inference service refuses.

Problem
├── UnknownModelError     404
├── UnknownVersionError   404
├── UnsafeModelError      422  the ONNX file is not one that is run here
├── ParityError           422  its answers differ from scikit-learn's
└── ManifestError         422  the manifest does not fit the model
"""

from shared.problems import NotFound, Unprocessable


class UnknownModelError(NotFound):
    """No model of that name is registered."""

    slug = "unknown-model"


class UnknownVersionError(NotFound):
    """The model has no such version."""

    slug = "unknown-version"


class UnsafeModelError(Unprocessable):
    """The ONNX file is not one that is run here."""

    slug = "unsafe-model"


class ParityError(Unprocessable):
    """The version's answers differ from scikit-learn's on its own sample."""

    slug = "parity"


class ManifestError(Unprocessable):
    """The manifest does not fit the model."""

    slug = "manifest"
