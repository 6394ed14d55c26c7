"""The one way in which every service is an HTTP application: health, metrics, problems, limits, bodies."""

import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.json_bounds import has_too_many_parts
from shared.logs import logger
from shared.problems import (
    BadRequest,
    FieldError,
    NotFound,
    Problem,
    TooLarge,
    Unprocessable,
    UnsupportedMediaType,
    described,
    problem_response,
    render_http_exception,
    render_problem,
    render_unexpected,
    shortened,
)

StructT = TypeVar("StructT")
Ready = Callable[[Mapping[str, Any]], Awaitable[list[str]]]
Remarks = Callable[[Mapping[str, Any]], list[str]]
_PATH_IN_MESSAGE = re.compile(r" - at `(.*?)`$")
_MISSING_FIELD = re.compile(r"(?:missing required|unknown) field `(.*?)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_CLIENT_CLOSED = 499  # nginx's number for it
_MOST_PARTS = 100_000
"""Arrays and objects of a body: 10,000 events have 20,000, and 4 MB of `[],` would take 100 MB and a second."""
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_SECONDS = Histogram(
    "contender_http_request_seconds",
    "Time from a request's first byte to its response's last",
    ["method", "route", "status"],
    buckets=_BUCKETS_S,
)


def create_app(
    *,
    service: str,
    title: str,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]],
    ready: Ready | None = None,
    remarks: Remarks | None = None,
) -> FastAPI:
    """A FastAPI application with /livez, /readyz, /metrics and problem details.

    Args:
        service: name of the service, for the OpenAPI document.
        title: title of the OpenAPI document.
        lifespan: opens what the application needs and yields it as state.
        ready: given that state, the reasons why this process can't do its job; none means ready.
        remarks: given that state, what an operator should know of a process that is ready.
    """
    app = FastAPI(
        title=title,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads its assets from a CDN
        redoc_url=None,
        redirect_slashes=False,  # one path, one answer: what is not there is a problem, and no other address
        generate_unique_id_function=_operation_id,
        exception_handlers={
            Problem: render_problem,
            HTTPException: render_http_exception,
            RequestValidationError: _render_validation_error,
            ClientDisconnect: _note_disconnect,
            Exception: render_unexpected,
        },
    )
    app.add_middleware(_Measured)

    @app.get("/livez", tags=["health"])
    async def livez() -> dict[str, str]:
        """This process lives."""
        return {"status": "alive", "service": service}

    @app.get("/readyz", tags=["health"])
    async def readyz(request: Request) -> Response:
        """This process can do its job; else 503 with the reasons."""
        reasons = await ready(request.scope["state"]) if ready else []
        if reasons:
            return problem_response(503, "unavailable", "; ".join(reasons), headers={"Retry-After": "1"})
        said = remarks(request.scope["state"]) if remarks else []
        return json_response({"status": "ready", "service": service, **({"remarks": said} if said else {})})

    @app.get("/problems/{slug}", tags=["problems"])
    async def describe_problem(slug: str) -> Response:
        """What a problem's `type` stands for."""
        found = described(slug)
        if found is None:
            raise NotFound(f"there is no problem {slug}")
        return json_response(found)

    @app.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        """Everything counted, as Prometheus reads it."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


class DirectRoute(APIRoute):
    """Hands the request to its endpoint as it is, with the path's parameters as text.

    For endpoints that answer most of the calls and read their own bodies: FastAPI's solving of dependencies takes as
    long as the rest of such a call.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint alone."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            answer: Response = await endpoint(request, **request.path_params)
            return answer

        return handle


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of anything msgspec encodes."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


async def read_body(request: Request, shape: type[StructT], limit_bytes: int) -> StructT:
    """The JSON body as `shape`, which should forbid unknown fields.

    Raises:
        UnsupportedMediaType: the content type is not JSON.
        TooLarge: the body is longer than the limit.
        BadRequest: the body is not JSON.
        Unprocessable: a field is missing, unknown or of the wrong type; the error names it.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"content-type is {media_type or 'missing'}; this reads application/json")
    body = await read_bytes(request, limit_bytes)
    return decode_json(body, shape)


async def read_bytes(request: Request, limit_bytes: int) -> bytes:
    """The raw body.

    Raises:
        TooLarge: the body is longer than the limit; it is not read to its end.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge(f"the body is longer than {limit_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def decode_json(body: bytes, shape: type[StructT]) -> StructT:
    """Decode JSON into `shape`.

    Raises:
        TooLarge: it holds too many arrays and objects.
        BadRequest: not JSON.
        Unprocessable: JSON of another shape; the error names the field.
    """
    if has_too_many_parts(body, _MOST_PARTS):
        raise TooLarge(f"the body holds more than {_MOST_PARTS} arrays and objects: send it in several calls")
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        found = _field_error(str(error), body, shape)
        raise Unprocessable(f"{found.field}: {found.message}", [found]) from error
    except _NOT_JSON as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _field_error(message: str, body: bytes, shape: type) -> FieldError:
    path = _PATH_IN_MESSAGE.search(message)
    missing = _MISSING_FIELD.search(message)
    steps = [_named(path[1].removeprefix("$"), body, shape)] if path else []
    if missing:
        steps.append(shortened(missing[1]))
    said = _PATH_IN_MESSAGE.sub("", message)
    return FieldError(".".join(step for step in steps if step) or "body", shortened(said, 200))


def _named(path: str, body: bytes, shape: type) -> str:
    """The path as msgspec gives it, with the keys that it leaves out: `.inputs[...][0]` as `inputs.age[0]`."""
    head, unnamed, rest = path.rpartition("[...]")
    named = ""
    content, kind = body, shape
    try:
        for step in _STEP.finditer(head + unnamed):
            parts, kind = _parts(content, kind, step[1])
            place = step[1] or (int(step[2]) if step[2] else _first_fault(parts, kind))
            named += f"[{place}]" if isinstance(place, int) else f".{shortened(place)}"
            content = parts[place]
    except (LookupError, *_NOT_JSON):  # a key is given twice, or what follows the fault can't be read
        named = ""
    return (named + rest if named else path).removeprefix(".")


def _parts(content: bytes, kind: Any, field: str | None) -> tuple[Mapping[Any, bytes], Any]:
    """The parts of an object or array, not decoded yet, and the type that they, or the field, should have."""
    if get_origin(kind) in (Union, UnionType):  # such as `dict[str, int] | None`
        kind = next(one for one in get_args(kind) if one is not NoneType)
    is_list = get_origin(kind) is list
    if bytes(content).count(b"," if is_list else b":") > _MOST_PARTS:
        raise LookupError  # to name it would take more than to read it
    if is_list:
        return dict(enumerate(msgspec.json.decode(content, type=list[msgspec.Raw]))), get_args(kind)[0]
    parts = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    if field is None:
        return parts, get_args(kind)[1]
    return parts, {known.encode_name: known.type for known in msgspec.structs.fields(kind)}[field]


def _first_fault(parts: Mapping[Any, bytes], kind: Any) -> Any:
    """Where the first part lies that does not have the type."""
    decoder = msgspec.json.Decoder(kind)
    for place, part in parts.items():
        try:
            decoder.decode(part)
        except msgspec.ValidationError:
            return place
    raise LookupError


async def _note_disconnect(request: Request, _: Exception) -> Response:
    """A client that leaves in the middle of its body is no error of ours; nobody reads this answer."""
    logger(__name__).info("the connection ended before the request was read", path=shortened(request.url.path))
    return Response(status_code=_CLIENT_CLOSED)


async def _render_validation_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [FieldError(".".join(str(step) for step in item["loc"]), item["msg"]) for item in error.errors()]
    return problem_response(422, Unprocessable.slug, "; ".join(f"{e.field}: {e.message}" for e in errors), errors)


def _operation_id(route: APIRoute) -> str:
    return route.name


class _Measured:
    """Times every request by its route, never by its path: paths are unbounded."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            _seconds(scope["method"], route, status).observe(time.perf_counter() - started)


@lru_cache(1024)  # looking a child up takes as long as observing
def _seconds(method: str, route: str, status: int) -> Histogram:
    return REQUEST_SECONDS.labels(method, route, status)
