"""The calls that every service answers: its health, its metrics and its problems."""

import msgspec

from contender.contracts.operation import Operation
from contender.contracts.problems import NOT_FOUND, UNAVAILABLE, ProblemDetails


class Liveness(msgspec.Struct, frozen=True):
    """The process lives."""

    status: str
    service: str


class Readiness(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process can do its job; `remarks` says what an operator should know nevertheless.

    `progress` has the counters of a worker that increase while it works.
    """

    status: str
    service: str
    remarks: list[str] = []
    progress: dict[str, int] = {}


class Unreadiness(ProblemDetails, frozen=True, omit_defaults=True):
    """The process can't do its job; `detail` says why."""

    progress: dict[str, int] = msgspec.field(default_factory=dict)


class ProblemMeaning(msgspec.Struct, frozen=True):
    """The meaning of a problem's `type`."""

    type: str
    status: int
    title: str


LIVEZ = Operation(
    "livez",
    "GET",
    "/livez",
    "Says that this process lives.",
    Liveness,
    tag="health",
    answer_example={"status": "alive", "service": "ab_router"},
)
READYZ = Operation(
    "readyz",
    "GET",
    "/readyz",
    "Says that this process can do its job, or answers 503 with the reasons.",
    Readiness,
    problems=(UNAVAILABLE,),
    tag="health",
    answer_example={"status": "ready", "service": "ab_router"},
)
METRICS = Operation(
    "metrics",
    "GET",
    "/metrics",
    "Everything counted, as Prometheus reads it.",
    str,
    tag="health",
    answer_media_type="text/plain",
)
DESCRIBE_PROBLEM = Operation(
    "describe_problem",
    "GET",
    "/problems/{slug}",
    "Explains a problem's `type`.",
    ProblemMeaning,
    problems=(NOT_FOUND,),
    tag="problems",
    answer_example={"type": "/problems/not-found", "status": 404, "title": NOT_FOUND.meaning},
)
