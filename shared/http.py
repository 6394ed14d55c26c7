"""How every service is an HTTP application, with health, metrics and problems."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any, cast

import msgspec
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contender.contracts import health
from contender.contracts.problems import UNAVAILABLE, ProblemType, details
from contender.contracts.release import release
from shared.docs_page import docs_page
from shared.errors import NotFound, ProblemTable, ServiceError, shortened
from shared.guard import IS_DRAINING
from shared.logs import logger
from shared.openapi import Gate, openapi_document
from shared.pages import mount_assets
from shared.problems import OF_HTTP, Renderer, describe, problem_response, renderers
from shared.routes import Routes, find

Ready = Callable[[Mapping[str, Any]], Awaitable[list[str]]]
Remarks = Callable[[Mapping[str, Any]], list[str]]
Progress = Callable[[], dict[str, int]]
_CLIENT_CLOSED = 499  # nginx's number for it
_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_SECONDS = Histogram(
    "contender_http_request_seconds",
    "Time from a request's first byte to its response's last",
    ["method", "route", "status"],
    buckets=_BUCKETS_S,
)


class Application(FastAPI):
    """A FastAPI application that answers its operations itself: FastAPI's layers take longer than a prediction does.

    Pages, documents, and requests for no operation are FastAPI's.

    Args:
        parts: the operations.
        options: FastAPI's own; an exception handler for Exception is among them.
    """

    def __init__(self, parts: Sequence[Routes], **options: Any) -> None:
        super().__init__(**options)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        found = find(self._parts, scope) if scope["type"] == "http" else None
        if found is None:
            await super().__call__(scope, receive, send)
            return
        started = time.perf_counter()
        scope.update(app=self, path_params=found.parameters)
        request = Request(scope, receive, send)
        failure: Exception | None = None
        try:
            answer = await found.answer(request)
        except Exception as error:  # noqa: BLE001 - each kind has its handler
            handled = next(kind for kind in type(error).__mro__ if kind in self.exception_handlers)
            failure = error if handled is Exception else None
            render = cast("Renderer", self.exception_handlers[handled])
            answer = await render(request, error)
        await answer(scope, receive, send)
        _seconds(scope["method"], found.path, answer.status_code).observe(time.perf_counter() - started)
        if failure is not None:
            raise failure  # the server logs its traceback


def create_app(
    *,
    service: str,
    title: str,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]] | None = None,
    routes: Sequence[Routes] = (),
    problems: Mapping[type[ServiceError], ProblemType] | None = None,
    ready: Ready | None = None,
    remarks: Remarks | None = None,
    progress: Progress | None = None,
) -> FastAPI:
    """A FastAPI application with health, metrics, problem details, /openapi.json and the page /docs.

    The OpenAPI document lists the problems of each middleware class that has a static `problems_of(operation)`.

    Args:
        service: name of the service.
        title: title of the OpenAPI document.
        lifespan: opens what the application needs and yields it as state, in which every process has its `settings`.
        routes: the service's own.
        problems: which problem stands for which error of the service's own.
        ready: given that state, the reasons why this process can't do its job; none means ready.
        remarks: given that state, what an operator should know of a process that is ready.
        progress: counters by name, one of which moves while a worker makes progress.
    """
    table = ProblemTable({**OF_HTTP, **(problems or {})})
    parts = [*routes, _health(service, table, ready, remarks, progress)]
    app = Application(
        parts,
        title=title,
        version=release(),
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads its assets from a CDN
        redoc_url=None,
        redirect_slashes=False,  # one path, one answer: an unknown path gets a problem, and no redirect
        exception_handlers={ClientDisconnect: _note_disconnect, **renderers(table)},
    )
    app.add_middleware(_Measured)
    operations = [operation for part in parts for operation in part.operations]
    app.openapi = lru_cache(1)(lambda: openapi_document(title, release(), operations, _gates(app)))  # type: ignore[method-assign]
    for part in parts:
        app.routes.extend(part.routes)
    app.include_router(docs_page(app.openapi))
    mount_assets(app)
    return app


def _gates(app: FastAPI) -> list[Gate]:
    gates = (getattr(middleware.cls, "problems_of", None) for middleware in app.user_middleware)
    return [gate for gate in gates if gate is not None]


def _health(
    service: str, table: ProblemTable, ready: Ready | None, remarks: Remarks | None, progress: Progress | None
) -> Routes:
    routes = Routes()

    @routes.serve(health.LIVEZ)
    async def livez(_: Request) -> health.Liveness:
        return health.Liveness("alive", service)

    @routes.serve(health.READYZ)
    async def readyz(request: Request) -> health.Readiness | Response:
        state = request.scope["state"]
        reasons = ["the process is about to end, and serves on for a moment"] if state.get(IS_DRAINING) else []
        reasons += await ready(state) if ready else []
        counters = progress() if progress else {}
        if reasons:
            problem = details(UNAVAILABLE, "; ".join(reasons))
            unreadiness = health.Unreadiness(**msgspec.structs.asdict(problem), progress=counters)
            return problem_response(unreadiness, {"Retry-After": "1"})
        return health.Readiness("ready", service, remarks(state) if remarks else [], counters)

    @routes.serve(health.DESCRIBE_PROBLEM)
    async def describe_problem(_: Request, slug: str) -> health.ProblemMeaning:
        kind = describe(slug, table)
        if kind is None:
            raise NotFound(f"there is no problem {shortened(slug)}")
        return health.ProblemMeaning(kind.type, kind.status, kind.meaning)

    @routes.serve(health.METRICS)
    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return routes


async def _note_disconnect(request: Request, _: Exception) -> Response:
    """A client that leaves in the middle of its body is not a fault of ours; nobody reads this answer."""
    logger(__name__).info("the connection ended before the request was read", path=shortened(request.url.path))
    return Response(status_code=_CLIENT_CLOSED)


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
