"""Errors as callers see them: problem details (RFC 9457) and their types."""

import http
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "/problems/"
"""Types are relative references (RFC 9457, 3.1.1): each service answers them with a page of its own."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem: the last part of its `type`, its HTTP status, and its meaning in one sentence."""

    slug: str
    status: int
    meaning: str

    @property
    def type(self) -> str:
        """The problem's `type`."""
        return TYPE_PREFIX + self.slug

    @property
    def title(self) -> str:
        """The problem's `title`."""
        return http.HTTPStatus(self.status).phrase


class FieldError(msgspec.Struct, frozen=True):
    """The fault of a field. `field` is a path such as `rows[3].inputs.distance`."""

    field: str
    message: str


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an answer that is an error."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class ProblemSummary(msgspec.Struct, frozen=True):
    """The part of a problem that clients act on; empty for an answer that is not a problem."""

    detail: str = ""
    errors: list[FieldError] = []
    type: str = ""

    @property
    def slug(self) -> str:
        """The last part of the type."""
        return self.type.rpartition("/")[2]


def read_problem(content: bytes) -> ProblemSummary:
    """The problem in an answer, whoever has sent it."""
    try:
        return msgspec.json.decode(content, type=ProblemSummary)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ProblemSummary()


def details(kind: ProblemType, detail: str, errors: Sequence[FieldError] = ()) -> ProblemDetails:
    """The body of a problem."""
    return ProblemDetails(kind.type, kind.title, kind.status, detail, list(errors))


def shortened(text: str, length: int = 100) -> str:
    """What a caller sent, or its beginning, for a message: no more than a line of it."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


BAD_REQUEST = ProblemType("bad-request", 400, "The body does not have the format that its content type names.")
NOT_FOUND = ProblemType("not-found", 404, "Nothing has that name.")
CONFLICT = ProblemType("conflict", 409, "The present state does not allow it.")
TOO_LARGE = ProblemType("too-large", 413, "The call has more bytes or rows than allowed.")
UNSUPPORTED_MEDIA_TYPE = ProblemType("unsupported-media-type", 415, "The service does not read this content type.")
INVALID_FIELD = ProblemType("invalid-field", 422, "A field is missing, mistyped or out of range.")
INTERNAL_ERROR = ProblemType("internal-error", 500, "The service failed on the request; its log says why.")
UNAVAILABLE = ProblemType("unavailable", 503, "The service can't do its job at the moment.")
OVERLOADED = ProblemType("overloaded", 503, "More is queued than can be answered within the deadline.")
JOURNAL_FULL = ProblemType("journal-full", 503, "The journal of unsent events is full, or its disk fails.")
RECORD_TOO_LARGE = ProblemType("record-too-large", 413, "A record is larger than Kafka accepts.")
REQUEST_TIMEOUT = ProblemType("request-timeout", 408, "The head or the body of the request came too slowly.")
TOO_MANY_REQUESTS = ProblemType("too-many-requests", 429, "Too many requests wait on one connection.")
HEAD_TOO_LARGE = ProblemType(
    "request-header-fields-too-large", 431, "The head of the request is too long, or has too many fields."
)
SERVICE_UNAVAILABLE = ProblemType("service-unavailable", 503, "Too many connections are open.")
CROSS_SITE = ProblemType(
    "cross-site",
    403,
    "A page of another origin tries to change something; CONTENDER_ALLOWED_ORIGINS lists the origins that may.",
)
MISDIRECTED = ProblemType(
    "misdirected-request",
    421,
    "The header Host has a name that this service does not serve; CONTENDER_ALLOWED_HOSTS lists the others.",
)
