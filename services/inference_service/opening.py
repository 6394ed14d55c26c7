"""How a version's file becomes a session, wherever that happens."""

import msgspec

from contender.contracts.inference_service import ModelVersion
from services.inference_service.session import Session


def open_session(content: bytes, version: ModelVersion) -> Session:
    """The session of a version.

    Raises:
        UnsafeModelError: onnxruntime refuses the file.
        ManifestError: the file does not fit the version.
    """
    return Session(
        content,
        version.inputs,
        version.task,
        version.classes,
        score_output=version.score_output,
        label_output=version.label_output,
    )


def served_part(version: ModelVersion) -> ModelVersion:
    """A version without what only its readers need, for another process."""
    return msgspec.structs.replace(version, manifest={}, description="")
