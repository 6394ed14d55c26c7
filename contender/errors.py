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
        slug: the kind of problem, such as `unknown-model`: the last part of its `type`. Empty where none is named.
        errors: field and message of each fault, as the service names them.
        retry_after_s: after how many seconds the service asks to be called again; None where it does not.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        *,
        slug: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.errors = list(errors)
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """The refusal in an answer; without problem details its message is the answer's text."""
        problem = read_problem(answer.content)
        retry_after_s = _seconds(answer.headers.get("retry-after", ""))
        detail = problem.detail or answer.text
        return cls(answer.status_code, detail, problem.errors, slug=problem.slug, retry_after_s=retry_after_s)


class UnreachableError(ContenderError):
    """A service does not answer."""


def _seconds(retry_after: str) -> float | None:
    """The seconds of a header Retry-After; None where it gives a date, as our services never do, or is missing."""
    return float(retry_after) if retry_after.isdecimal() and retry_after.isascii() else None
