"""What the inference service refuses.

Problem
├── UnknownModelError     404
├── UnknownVersionError   404
├── VersionConflictError  409  the ONNX file is registered already, with another description of its inputs
├── UnsafeModelError      422  the ONNX file is not one that is run here
├── ParityError           422  its answers differ from scikit-learn's
├── ManifestError         422  the manifest does not fit the model
├── AnswerError           422  the model fails on these rows
├── UnreadableVersionError 500 the registry's row of the version can't be read
├── VersionUnavailableError 503 the version can't be opened at the moment
└── RegistryError         503  the registry can't be reached
"""

from shared.problems import Conflict, NotFound, Problem, Unavailable, Unprocessable


class UnknownModelError(NotFound):
    """No model of that name is registered."""

    slug = "unknown-model"


class UnknownVersionError(NotFound):
    """The model has no such version."""

    slug = "unknown-version"


class VersionConflictError(Conflict):
    """The ONNX file is registered already, with another description of its inputs."""

    slug = "version-conflict"


class UnsafeModelError(Unprocessable):
    """The ONNX file is not one that is run here."""

    slug = "unsafe-model"


class ParityError(Unprocessable):
    """The version's answers differ from scikit-learn's on its own sample."""

    slug = "parity"


class ManifestError(Unprocessable):
    """The manifest does not fit the model."""

    slug = "manifest"


class AnswerError(Unprocessable):
    """The model fails on these rows, or gives them no finite scores."""

    slug = "answer"


class UnreadableVersionError(Problem):
    """The registry's row of the version can't be read; an operator has to repair or delete it."""

    slug = "unreadable-version"


class VersionUnavailableError(Unavailable):
    """The version can't be opened at the moment."""

    slug = "version-unavailable"


class RegistryError(Unavailable):
    """The registry can't be reached."""

    slug = "registry-unavailable"
