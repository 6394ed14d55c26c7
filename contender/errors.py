"""What can go wrong for a caller of `contender`.

ContenderError
├── ExportError       the pipeline can't be exported to ONNX
├── ParityError       the exported model answers differently from scikit-learn
├── RefusedError      a service refuses; carries its problem details
└── UnreachableError  a service does not answer

ExperimentWarning     an experiment goes on with another configuration than the one that was declared
RegistrationWarning   a registered version treats some rows in a way that its owner may not expect
"""

from collections.abc import Sequence
from typing import Self

import httpx

from contender.contracts.problems import FieldError, read_problem


class ContenderError(Exception):
    """Contender can't do what it was asked for; the message says why."""


class ExperimentWarning(UserWarning):
    """An experiment goes on with another configuration than the one that was declared."""


class RegistrationWarning(UserWarning):
    """A registered version treats some rows in a way that its owner may not expect."""


class ExportError(ContenderError):
    """The pipeline can't be exported to ONNX."""


class ParityError(ContenderError):
    """The exported model answers differently from scikit-learn beyond the tolerance."""


class RefusedError(ContenderError):
    """A service refuses a call.

    Attributes:
        status: the HTTP status.
        errors: field and message of each fault, as the service names them.
    """

    def __init__(self, status: int, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.errors = list(errors)

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """The refusal in an answer; without problem details its message is the answer's text."""
        problem = read_problem(answer.content)
        return cls(answer.status_code, problem.detail or answer.text, problem.errors)


class UnreachableError(ContenderError):
    """A service does not answer."""
