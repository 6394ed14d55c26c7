"""What can go wrong for a caller of `contender`.

ContenderError
├── ExportError       the pipeline can't be exported to ONNX
├── ParityError       the exported model answers differently from scikit-learn
├── RefusedError      a service refused; carries its problem details
└── UnreachableError  a service does not answer

RegistrationWarning   a version is registered, and does with some rows what its owner may not expect
"""

import json
from typing import Self

import httpx


class ContenderError(Exception):
    """Something that was asked of Contender can't be done; the message says why."""


class RegistrationWarning(UserWarning):
    """A registered version does with some rows what its owner may not expect."""


class ExportError(ContenderError):
    """The pipeline can't be exported to ONNX."""


class ParityError(ContenderError):
    """The exported model answers differently from scikit-learn beyond the tolerance."""


class RefusedError(ContenderError):
    """A service refused.

    Attributes:
        status: the HTTP status.
        errors: field and message of each fault, as the service named them.
    """

    def __init__(self, status: int, detail: str, errors: list[dict[str, str]]) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = errors

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """The refusal that an answer tells of."""
        try:
            problem = answer.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            problem = {}
        if not isinstance(problem, dict):
            problem = {}
        return cls(answer.status_code, problem.get("detail", answer.text), problem.get("errors", []))


class UnreachableError(ContenderError):
    """A service does not answer."""
