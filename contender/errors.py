"""What can go wrong for a caller of `contender`.

ContenderError
├── ExportError     the pipeline can't be exported to ONNX
├── ParityError     the exported model answers differently from scikit-learn
└── RefusedError    a service refused; carries its problem details
"""


class ContenderError(Exception):
    """Something that was asked of Contender can't be done; the message says why."""


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
