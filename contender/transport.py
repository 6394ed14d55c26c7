"""Calls of the services over HTTP: every request of the client, the command line and registration is built here."""

import os
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar, cast, get_args
from urllib.parse import urlsplit

import httpx
import msgspec

from contender.bodies import encoded
from contender.contracts.operation import JSON, Operation
from contender.errors import ContenderError, RefusedError, UnreachableError

DEFAULT_URL = "http://127.0.0.1:8400"
ServiceName = Literal["ab_router", "feature_service", "inference_service", "feedback_service"]
Upload = Mapping[str, tuple[str, bytes, str]]
"""File name, content and media type of each part of a multipart body."""

AnswerT = TypeVar("AnswerT")
_PORTS = dict(zip(get_args(ServiceName), range(8400, 8404), strict=True))


def service_urls(url: str | None = None) -> dict[ServiceName, str]:
    """Where the services are, without a trailing slash.

    Args:
        url: the router; default: the variable CONTENDER_URL, else `http://127.0.0.1:8400`. The other services are on
            the same host, on ports 8401 to 8403, unless CONTENDER_<SERVICE>_URL or CONTENDER_<SERVICE>_PORT says
            otherwise.

    Raises:
        ContenderError: a URL is invalid.
    """
    router = _checked(url or os.environ.get("CONTENDER_URL") or DEFAULT_URL)
    others = (service for service in _PORTS if service != "ab_router")
    return {"ab_router": router, **{service: _url_beside(router, service) for service in others}}


class Transport:
    """Sends the calls that operations describe.

    Args:
        urls: by service; default: those of `service_urls()`.
        timeout_s: longest wait for an answer.
        transport: another way to send; for tests.

    Raises:
        ContenderError: a URL is invalid.
    """

    def __init__(
        self,
        urls: Mapping[ServiceName, str] | None = None,
        *,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.urls = service_urls() if urls is None else urls
        self._http = httpx.Client(timeout=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        service: ServiceName,
        operation: Operation[AnswerT],
        /,
        *,
        body: object = None,
        query: Mapping[str, Any] | None = None,
        files: Upload | None = None,
        timeout_s: float | None = None,
        **path: str,
    ) -> AnswerT:
        """The answer to one call.

        Args:
            service: who is called.
            operation: what is called.
            body: sent as JSON; scalars of numpy and arrays of one element as plain values.
            query: parameters by name; None leaves one out.
            files: the parts of an upload, in place of `body`.
            timeout_s: longest wait for this answer; default: that of the transport.
            path: the parameters of the operation's path.

        Raises:
            RefusedError: the service refuses.
            UnreachableError: the service does not answer.
            ContenderError: the body or a name can't be sent, or something other than Contender answers.
        """
        url = self.urls[service] + _path(operation, path)
        try:
            answer = self._http.request(
                operation.method,
                url,
                params={name: value for name, value in (query or {}).items() if value is not None},
                content=None if body is None else encoded(body),
                files=files,
                headers={} if body is None else {"content-type": JSON},
                timeout=httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s,
            )
        except httpx.HTTPError as error:
            raise UnreachableError(f"{url} does not answer: {error}") from error
        if answer.is_error:
            raise RefusedError.of(answer)
        if operation.answer is bytes:
            return cast("AnswerT", answer.content)
        return decoded(answer.content, operation.answer, url)


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


def _url_beside(router: str, service: ServiceName) -> str:
    variable = f"CONTENDER_{service.upper()}"
    if url := os.environ.get(f"{variable}_URL"):
        return _checked(url)
    parts = urlsplit(router)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return _checked(f"{parts.scheme}://{host}:{os.environ.get(f'{variable}_PORT', _PORTS[service])}")


def _checked(url: str) -> str:
    """The URL without a trailing slash."""
    try:
        httpx.URL(url)  # rejects control characters, which urlsplit accepts, but not every bracket
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, httpx.InvalidURL) as error:
        raise ContenderError(f"{url!a} is not a URL such as {DEFAULT_URL}: {error}") from error
    if not is_valid:
        raise ContenderError(f"{url!a} is not a URL such as {DEFAULT_URL}")
    return url.rstrip("/")
