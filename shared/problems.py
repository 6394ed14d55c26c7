"""Problem details as HTTP answers: how errors of use cases, of the framework and unexpected ones are rendered."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from contender.contracts.problems import (
    BAD_REQUEST,
    CROSS_SITE,
    INTERNAL_ERROR,
    INVALID_FIELD,
    MEDIA_TYPE,
    MISDIRECTED,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    ProblemDetails,
    ProblemType,
    details,
)
from shared.errors import ProblemTable, ServiceError, Unavailable

Renderer = Callable[[Request, Any], Coroutine[Any, Any, Response]]


class BadRequest(ServiceError):  # noqa: N818
    """The body is not what its content type says."""


class UnsupportedMediaType(ServiceError):  # noqa: N818
    """The call does not take this content type."""


OF_HTTP: dict[type[ServiceError], ProblemType] = {
    BadRequest: BAD_REQUEST,
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE,
}


def problem_response(problem: ProblemDetails, headers: dict[str, str] | None = None) -> Response:
    """The problem as an answer."""
    return Response(msgspec.json.encode(problem), problem.status, headers, MEDIA_TYPE)


def http_problem(status: int, detail: str) -> ProblemDetails:
    """A problem that HTTP itself has a name for."""
    return details(kind_of_status(status), detail)


def kind_of_status(status: int) -> ProblemType:
    """The type of problems that HTTP itself has a name for."""
    phrase = HTTPStatus(status)
    return ProblemType(phrase.phrase.lower().replace(" ", "-"), status, phrase.description)


def error_response(error: ServiceError, table: ProblemTable) -> Response:
    """The answer to a call whose use case raised `error`."""
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Unavailable) else None
    return problem_response(table.details_of(error), headers)


def renderers(table: ProblemTable) -> dict[int | type[Exception], Renderer]:
    """The exception handlers of an application, one for each kind of exception."""

    async def render_error(_: Request, error: Exception) -> Response:
        if not isinstance(error, ServiceError):
            raise error
        return error_response(error, table)

    return {
        ServiceError: render_error,
        HTTPException: render_http_exception,
        RequestValidationError: _render_validation_error,
        Exception: render_unexpected,
    }


def describe(slug: str, table: ProblemTable) -> ProblemType | None:
    """What `/problems/<slug>` stands for; None where there is no such problem."""
    kinds = [CROSS_SITE, MISDIRECTED, *table, *map(kind_of_status, HTTPStatus)]
    return next((kind for kind in kinds if kind.slug == slug), None)


async def render_http_exception(_: Request, error: Exception) -> Response:
    """Exception handler for the framework's own 404, 405 and the like."""
    if not isinstance(error, HTTPException):
        raise error
    return problem_response(http_problem(error.status_code, str(error.detail)), dict(error.headers or {}))


async def render_unexpected(_: Request, __: Exception) -> Response:
    """Exception handler of last resort: the caller learns that it is our fault; the server logs the traceback."""
    return problem_response(details(INTERNAL_ERROR, "The service failed on this request; its log says why."))


async def _render_validation_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [FieldError(".".join(str(step) for step in item["loc"]), item["msg"]) for item in error.errors()]
    detail = "; ".join(f"{fault.field}: {fault.message}" for fault in errors)
    return problem_response(details(INVALID_FIELD, detail, errors))
