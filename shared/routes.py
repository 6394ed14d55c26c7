"""Routes made from operations: the body is read and the answer written as the contract says."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from contender.contracts.operation import JSON, Operation
from shared.bodies import has_body, read_body, read_query

AnswerT = TypeVar("AnswerT")
Endpoint = Callable[..., Awaitable[Any]]
Answer = Callable[[Request], Awaitable[Response]]
EndpointT = TypeVar("EndpointT", bound=Endpoint)


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a request: its path as the contract has it, what answers, and the path's parameters."""

    path: str
    answer: Answer
    parameters: Mapping[str, str]


class Routes:
    """Routes of one service.

    They are Starlette's own: msgspec decodes bodies, and FastAPI's solving of dependencies would take as long as the
    rest of a prediction's call.

    An endpoint takes the request, then `body` and `query` where its operation has them, and the path's parameters as
    text by name. It returns the answer's value, or a Response where status or headers differ.
    """

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self.operations: list[Operation[Any]] = []
        self.answers: list[Answer] = []

    def serve(self, operation: Operation[Any], *, reads_body: bool = True) -> Callable[[EndpointT], EndpointT]:
        """Answer an operation's calls with the decorated function.

        Args:
            operation: the call.
            reads_body: whether a JSON body is read here; otherwise the endpoint reads it from the request.
        """

        def register(endpoint: EndpointT) -> EndpointT:
            self.operations.append(operation)
            answer = _answering(operation, endpoint, reads_body=reads_body)
            self.answers.append(answer)
            self.routes.append(Route(operation.path, answer, methods=[operation.method], name=operation.id))
            return endpoint

        return register


def find(parts: Sequence[Routes], scope: Scope) -> Found | None:
    """The route of a request, None where no operation has its path and method."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    for part in parts:
        for operation, route, answer in zip(part.operations, part.routes, part.answers, strict=True):
            if operation.method == method and (match := route.path_regex.match(scope["path"])):
                return Found(operation.path, answer, match.groupdict())
    return None


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of anything msgspec encodes."""
    return Response(msgspec.json.encode(content), status, headers, JSON)


def json_with_etag(request: Request, content: object) -> Response:
    """The content with an ETag of its bytes; 304 and no content where the request's If-None-Match names that ETag."""
    body = msgspec.json.encode(content)
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})
    return Response(body, headers={"ETag": etag}, media_type=JSON)


def _answering(operation: Operation[Any], endpoint: Endpoint, *, reads_body: bool) -> Answer:
    reads_json = reads_body and operation.body is not None and operation.body_media_type == JSON

    async def answer(request: Request) -> Response:
        arguments: dict[str, Any] = dict(request.path_params)
        if operation.query is not None:
            arguments["query"] = read_query(request, operation.query)
        if reads_json:
            limit_bytes = request.state.settings.body_limit_bytes
            if operation.body_optional and not has_body(request):
                arguments["body"] = operation.body()
            else:
                arguments["body"] = await read_body(request, operation.body, limit_bytes)
        content = await endpoint(request, **arguments)
        return content if isinstance(content, Response) else json_response(content, operation.status)

    answer.__doc__ = operation.summary
    return answer
