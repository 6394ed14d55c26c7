"""What the inference service refuses.

ServiceError
├── UnknownModelError
├── UnknownVersionError
├── UploadNotKeptError    the version's upload was not kept
├── NoPromotionError      no promotion of the model stands that could be undone
├── VersionConflictError  the ONNX file is registered already, with another description of its inputs
├── UnsafeModelError      the ONNX file breaks a rule for files that are run here
├── ParityError           its answers differ from scikit-learn's
├── ManifestError         the manifest does not fit the model
├── AnswerError           the model fails on these rows
├── UnreadableVersionError  the registry's row of the version can't be read
├── VersionUnavailableError  the version can't be opened at the moment
└── RegistryError         the registry can't be reached
"""

from contender.contracts import inference_service as contract
from contender.contracts.problems import ProblemType
from shared.errors import Conflict, InvalidField, NotFound, ServiceError, Unavailable


class UnknownModelError(NotFound):
    """No model of that name is registered."""


class UnknownVersionError(NotFound):
    """The model has no such version."""


class UploadNotKeptError(NotFound):
    """The version's upload was not kept."""


class NoPromotionError(Conflict):
    """No promotion of the model stands that could be undone."""


class VersionConflictError(Conflict):
    """The ONNX file is registered already, with another description of its inputs."""


class UnsafeModelError(InvalidField):
    """The ONNX file breaks a rule for files that are run here."""


class ParityError(InvalidField):
    """The version's answers differ from scikit-learn's on its own sample."""


class ManifestError(InvalidField):
    """The manifest does not fit the model."""


class AnswerError(InvalidField):
    """The model fails on these rows, or gives them no finite scores."""


class UnreadableVersionError(ServiceError):
    """The registry's row of the version can't be read; an operator has to repair or delete it."""


class VersionUnavailableError(Unavailable):
    """The version can't be opened at the moment."""


class RegistryError(Unavailable):
    """The registry can't be reached."""


PROBLEMS: dict[type[ServiceError], ProblemType] = {
    UnknownModelError: contract.UNKNOWN_MODEL,
    UnknownVersionError: contract.UNKNOWN_VERSION,
    UploadNotKeptError: contract.UPLOAD_NOT_KEPT,
    NoPromotionError: contract.NO_PROMOTION,
    VersionConflictError: contract.VERSION_CONFLICT,
    UnsafeModelError: contract.UNSAFE_MODEL,
    ParityError: contract.PARITY,
    ManifestError: contract.MANIFEST,
    AnswerError: contract.ANSWER,
    UnreadableVersionError: contract.UNREADABLE_VERSION,
    VersionUnavailableError: contract.VERSION_UNAVAILABLE,
    RegistryError: contract.REGISTRY_UNAVAILABLE,
}
"""The problem that stands for each error."""
