"""Errors of the calls under a path, in the form of a protocol that has one of its own."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from contender.contracts.problems import ProblemDetails
from shared.errors import ServiceError
from shared.routes import json_response

ErrorBody = Callable[[Request, ProblemDetails], msgspec.Struct]


def render_in_protocol(app: FastAPI, prefix: str, body: ErrorBody) -> None:
    """Answer every error of a call under `prefix`, such as `/v2/`, with what `body` makes of its problem.

    It replaces the application's exception handlers, whatever raised the error.
    """
    for kind in (ServiceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _in_protocol(app.exception_handlers[kind], prefix, body))


def _in_protocol(
    render: Callable[[Request, Any], Any], prefix: str, body: ErrorBody
) -> Callable[[Request, Any], Awaitable[Response]]:
    async def render_either(request: Request, error: Exception) -> Response:
        answer: Response = await render(request, error)
        if not f"{request.url.path}/".startswith(prefix):
            return answer
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        problem = msgspec.json.decode(answer.body, type=ProblemDetails)
        return json_response(body(request, problem), answer.status_code, headers)

    return render_either
