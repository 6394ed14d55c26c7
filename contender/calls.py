"""Calls as data: their request, and the value of their answer. The transports send them, each in its own way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import httpx
import msgspec

from contender.addresses import ServiceName
from contender.bodies import encoded
from contender.contracts.ab_router import DEADLINE_HEADER
from contender.contracts.operation import JSON, Operation
from contender.errors import ContenderError, RefusedError

Upload = Mapping[str, tuple[str, bytes, str]]
"""File name, content and media type of each part of a multipart body."""

LONGEST_DEADLINE_MS = 999_999_999
"""The router takes no more digits."""

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class Call(Generic[AnswerT]):
    """A call before it is sent.

    Attributes:
        service: who is called.
        operation: what is called.
        path: the parameters of the operation's path.
        body: sent as JSON; scalars of numpy and arrays of one element as plain values.
        query: parameters by name; None leaves one out.
        files: the parts of an upload, in place of `body`.
        repeatable: whether it changes nothing when it is made twice; by default, whether it only reads.
        tells_deadline: whether the service is told how long it is waited for, so that it works no longer.
    """

    service: ServiceName
    operation: Operation[AnswerT]
    path: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    query: Mapping[str, Any] = field(default_factory=dict)
    files: Upload | None = None
    repeatable: bool | None = None
    tells_deadline: bool = False

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again."""
        return self.operation.method == "GET" if self.repeatable is None else self.repeatable

    def headers(self, timeout_s: float) -> dict[str, str]:
        """The headers of an attempt that is waited for as long."""
        headers = {} if self.body is None else {"content-type": JSON}
        if self.tells_deadline:
            headers[DEADLINE_HEADER] = str(min(LONGEST_DEADLINE_MS, max(1, int(timeout_s * 1000))))
        return headers

    def request(self, urls: Mapping[ServiceName, str]) -> dict[str, Any]:
        """What httpx sends, but for the headers.

        Raises:
            ContenderError: the body or a name can't be sent.
        """
        return {
            "method": self.operation.method,
            "url": urls[self.service] + _path(self.operation, self.path),
            "params": {name: value for name, value in self.query.items() if value is not None},
            "content": None if self.body is None else encoded(self.body),
            "files": self.files,
        }

    def read(self, answer: httpx.Response) -> AnswerT:
        """The answer's value.

        Raises:
            RefusedError: the service refuses.
            ContenderError: something other than Contender answers.
        """
        if answer.is_error:
            raise RefusedError.of(answer)
        if self.operation.answer is bytes:
            return cast("AnswerT", answer.content)
        return decoded(answer.content, self.operation.answer, str(answer.url))


def decoded(content: bytes | msgspec.Raw, shape: type[AnswerT], url: str) -> AnswerT:
    """An answer, or a part of one, as `shape`.

    Raises:
        ContenderError: it has another shape.
    """
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContenderError(f"{url} is answered by something other than Contender: {error}") from error


def _path(operation: Operation[Any], parameters: Mapping[str, str]) -> str:
    try:
        return operation.url(**parameters)
    except UnicodeEncodeError as error:
        message = f"{error.object!a} can't be used as a name: it contains a character that UTF-8 can't encode"
        raise ContenderError(message) from error
