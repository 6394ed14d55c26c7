"""Calls of FakeContender: found by their operations, decoded, answered or refused as the services do."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import httpx
import msgspec

from contender.contracts import problems
from contender.contracts.ab_router import REPLAYED_HEADER, REQUEST_ID_REUSED
from contender.contracts.operation import Operation
from contender.contracts.problems import FieldError, ProblemType
from contender.contracts.shape_faults import field_error

Answer = Callable[..., httpx.Response]
Calls = Sequence[tuple[Operation[Any], Answer]]
"""What answers an operation: it takes the request, and the parameters of its path in order."""

ShapeT = TypeVar("ShapeT")
_RETRY_AFTER = {"Retry-After": "1"}


class CallRefusedError(Exception):
    """A call is refused with a problem."""

    def __init__(self, kind: ProblemType, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.details = problems.details(kind, detail, errors)

    @classmethod
    def of_fields(cls, kind: ProblemType, errors: Sequence[FieldError]) -> "CallRefusedError":
        """The refusal of fields."""
        return cls(kind, sentence(errors), errors)

    def render(self) -> httpx.Response:
        """The answer."""
        problem = self.details
        after = _RETRY_AFTER if problem.status == problems.OVERLOADED.status else {}
        headers = {"content-type": problems.MEDIA_TYPE, **after}
        return httpx.Response(problem.status, headers=headers, content=msgspec.json.encode(problem))


class KeptAnswers:
    """Answers to calls with a request id, by model and id: the same call gets the first one again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[bytes, bytes]] = {}

    def answer(self, key: tuple[str, str], body: object, answer: Callable[[], object]) -> httpx.Response:
        """The kept answer, or this one.

        Raises:
            CallRefusedError: the first call had another body; or `answer` raises it, and nothing is kept.
        """
        payload = msgspec.json.encode([type(body).__name__, body], order="deterministic")
        if key not in self._kept:
            first = encoded(answer())
            self._kept[key] = (payload, first.content)
            return first
        known, content = self._kept[key]
        if known != payload:
            raise CallRefusedError(REQUEST_ID_REUSED, f"request_id {key[1]} was that of another call")
        return encoded(msgspec.Raw(content), {REPLAYED_HEADER: "true"})


def answer_call(calls: Calls, request: httpx.Request) -> httpx.Response:
    """The answer of the operation that the request is for.

    Raises:
        CallRefusedError: there is none, or it refuses.
    """
    path = request.url.raw_path.decode().partition("?")[0]
    for operation, answer in calls:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.template)
        if operation.method == request.method and (match := re.fullmatch(pattern, path)):
            return answer(request, *(unquote(value) for value in match.groups()))
    raise CallRefusedError(problems.NOT_FOUND, f"FakeContender does not answer {request.method} {unquote(path)}")


def decoded(request: httpx.Request, shape: type[ShapeT]) -> ShapeT:
    """The body as `shape`.

    Raises:
        CallRefusedError: it has another shape; the error names the field.
    """
    try:
        return msgspec.json.decode(request.content, type=shape)
    except msgspec.ValidationError as error:
        fault = field_error(str(error), request.content, shape)
        raise CallRefusedError.of_fields(problems.INVALID_FIELD, [fault]) from error


def encoded(answer: object, headers: Mapping[str, str] | None = None, status: int = 200) -> httpx.Response:
    """An answer in JSON."""
    return httpx.Response(status, headers=headers, content=msgspec.json.encode(answer))


def sentence(errors: Sequence[FieldError]) -> str:
    """What is wrong, in words."""
    return "; ".join(f"{error.field} {error.message}" for error in errors[:3])
