"""Errors as callers see them: RFC 9457 problem details with a stable type.

Problem
├── BadRequest            400  not JSON
├── NotFound              404  no such model, version, experiment
├── Conflict              409  the state does not allow it
├── TooLarge              413  too many bytes or rows
├── UnsupportedMediaType  415  not the content type that is read here
├── Unprocessable         422  a field is missing, mistyped or out of range
└── Unavailable           503  can't answer now; Retry-After says when to ask again
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "/problems/"
"""Types are relative references (RFC 9457, 3.1.1): each service answers them with a page of its own."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field. `field` is a path such as `rows[3].inputs.distance`."""

    field: str
    message: str


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it a problem
    """An answer that is an error, rendered in one place."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"

    def __init__(self, detail: str, errors: Sequence[FieldError] = (), headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers or {}

    @classmethod
    def at(cls, field: str, message: str) -> "Problem":
        """A problem with one field."""
        return cls(f"{field} {message}", [FieldError(field, message)])


class BadRequest(Problem):
    """The body is not what its content type says."""

    status = 400
    slug = "bad-request"


class NotFound(Problem):
    """There is nothing of that name."""

    status = 404
    slug = "not-found"


class Conflict(Problem):
    """The present state does not allow it."""

    status = 409
    slug = "conflict"


class TooLarge(Problem):
    """More bytes or rows than one call may carry."""

    status = 413
    slug = "too-large"


class UnsupportedMediaType(Problem):
    """The content type is not read here."""

    status = 415
    slug = "unsupported-media-type"


class Unprocessable(Problem):
    """A field is missing, mistyped or out of range."""

    status = 422
    slug = "invalid-field"


class Unavailable(Problem):
    """The service can't do its job at the moment."""

    status = 503
    slug = "unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


def shortened(text: str, length: int = 100) -> str:
    """What a caller sent, or its beginning, for a message: no more than a line of it."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def problem_document(status: int, slug: str, detail: str, errors: Sequence[FieldError] = ()) -> dict[str, object]:
    """The problem as RFC 9457 writes it."""
    body: dict[str, object] = {
        "type": TYPE_PREFIX + slug,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    return body


def problem_response(
    status: int, slug: str, detail: str, errors: Sequence[FieldError] = (), headers: dict[str, str] | None = None
) -> Response:
    """The problem as an HTTP response."""
    body = problem_document(status, slug, detail, errors)
    return Response(msgspec.json.encode(body), status, headers, MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class Described:
    """What a problem's `type` stands for."""

    type: str
    status: int
    title: str


def described(slug: str) -> Described | None:
    """What `/problems/<slug>` stands for in this process; None where there is no such problem."""
    found = {_slug(status.phrase): Described(TYPE_PREFIX + slug, status, status.description) for status in HTTPStatus}
    pending: list[type[Problem]] = [Problem]
    while pending:  # the more special of two that share a slug come later and are left out
        kind = pending.pop(0)
        if kind.slug == slug and "slug" in vars(kind):
            return Described(TYPE_PREFIX + slug, kind.status, inspect.getdoc(kind) or "")
        pending += kind.__subclasses__()
    return found.get(slug)


def _slug(phrase: str) -> str:
    return phrase.lower().replace(" ", "-")


async def render_problem(_: Request, error: Exception) -> Response:
    """Exception handler for Problem."""
    if not isinstance(error, Problem):
        raise error
    return problem_response(error.status, error.slug, error.detail, error.errors, error.headers)


async def render_http_exception(_: Request, error: Exception) -> Response:
    """Exception handler for the framework's own 404, 405 and the like."""
    if not isinstance(error, HTTPException):
        raise error
    slug = _slug(HTTPStatus(error.status_code).phrase)
    return problem_response(error.status_code, slug, str(error.detail), headers=dict(error.headers or {}))


async def render_unexpected(_: Request, __: Exception) -> Response:
    """Exception handler of last resort: the caller learns that it is our fault; the server logs the traceback."""
    return problem_response(500, Problem.slug, "The service failed on this request; its log says why.")
