"""A description of one HTTP call, which servers, clients and the OpenAPI document share."""

import re
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from contender.contracts.problems import MEDIA_TYPE, ProblemDetails, ProblemType

AnswerT = TypeVar("AnswerT")
JSON = "application/json"
_CONVERTER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, slots=True)
class Operation(Generic[AnswerT]):
    """A call of a service.

    Attributes:
        id: the operation id, such as `create_experiment`; the client's and the server's functions have this name.
        method: `GET`, `POST`, `PUT` or `DELETE`.
        path: as Starlette spells it, such as `/v1/models/{model}/predict`.
        summary: one sentence.
        answer: the type of the answer's JSON.
        body: the type of the body's JSON; None where the call has none.
        body_optional: whether the body may be left out, which then has its defaults.
        query: a struct of the query's parameters; None where the call has none.
        request_headers: headers of its own that the call reads, each with its JSON schema.
        answer_headers: headers of its own that a successful answer may have, each with its meaning.
        status: the status of a successful answer; `other_statuses` has further ones with their meaning.
        problems: the problems of this call beyond those that any call may have.
        tag: the heading in the document.
        also: types that only `extra_json_schema` names.
        error, error_media_type: the body of an answer that is an error, where a protocol has one of its own; what is
            refused before the call is known (a foreign host, a head that is too long) is a problem all the same.
        body_example, answer_example: JSON as Python values, shown in the document and checked by a test.
    """

    id: str
    method: str
    path: str
    summary: str
    answer: type[AnswerT]
    body: Any = None
    query: type[msgspec.Struct] | None = None
    body_optional: bool = False
    request_headers: dict[str, dict[str, Any]] = field(default_factory=dict)
    answer_headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    other_statuses: dict[int, str] = field(default_factory=dict)
    problems: tuple[ProblemType, ...] = ()
    tag: str = ""
    body_media_type: str = JSON
    answer_media_type: str = JSON
    body_example: Any = None
    answer_example: Any = None
    also: tuple[type, ...] = ()
    error: type[msgspec.Struct] = ProblemDetails
    error_media_type: str = MEDIA_TYPE

    @property
    def template(self) -> str:
        """The path as OpenAPI spells it: no converters."""
        return _CONVERTER.sub(r"{\1}", self.path)

    @property
    def parameters(self) -> list[str]:
        """The names in the path."""
        return _CONVERTER.findall(self.path)

    def url(self, **parameters: str) -> str:
        """The path with its parameters, each quoted as one segment.

        Raises:
            UnicodeEncodeError: a parameter has a character that UTF-8 can't encode.
        """
        return self.template.format(**{name: quote(value, safe="") for name, value in parameters.items()})
