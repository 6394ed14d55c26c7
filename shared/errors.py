"""Errors of use cases: what is refused or can't be done, in words, without HTTP.

Each service has its own, and one table that maps them to problems of its calls.

ServiceError
├── NotFound       there is nothing of that name
├── Conflict       the present state does not allow it
├── TooLarge       more bytes or rows than one call may carry
│   └── RecordTooLarge
├── InvalidField   a field is missing, mistyped or out of range
└── Unavailable    can't be done at the moment
    ├── Overloaded
    └── JournalFull
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from contender.contracts import problems
from contender.contracts.problems import FieldError as FieldError  # noqa: PLC0414 - raised together with the errors
from contender.contracts.problems import ProblemDetails, ProblemType, details
from contender.contracts.problems import shortened as shortened  # noqa: PLC0414 - words of errors, too


class ServiceError(Exception):
    """A use case refuses, or can't do its work.

    Args:
        detail: a sentence for the caller.
        errors: what is wrong with which field.
    """

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = list(errors)

    @classmethod
    def at(cls, field: str, message: str) -> Self:
        """An error of one field."""
        return cls(f"{field} {message}", [FieldError(field, message)])


class NotFound(ServiceError):  # noqa: N818 - reads as the outcome that it is
    """There is nothing of that name."""


class Conflict(ServiceError):  # noqa: N818
    """The present state does not allow it."""


class TooLarge(ServiceError):  # noqa: N818
    """More bytes or rows than one call may carry."""


class InvalidField(ServiceError):  # noqa: N818
    """A field is missing, mistyped or out of range."""


class Unavailable(ServiceError):  # noqa: N818
    """It can't be done at the moment.

    Args:
        detail: a sentence for the caller.
        retry_after_s: when asking again may help.
    """

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """More is queued than can be answered within the deadline."""


class JournalFull(Unavailable):
    """The journal holds as many unsent bytes as it may, or its disk takes no more."""


class RecordTooLarge(TooLarge):
    """A record is larger than Kafka takes."""


class ProblemTable:
    """Which problem stands for an error in answers.

    Args:
        kinds: by error class; a class stands for its subclasses unless they have a line of their own.
    """

    def __init__(self, kinds: Mapping[type[ServiceError], ProblemType]) -> None:
        self._kinds = {**_COMMON, **kinds}

    def kind_of(self, error: type[ServiceError]) -> ProblemType:
        """The problem type of an error class."""
        return next(self._kinds[base] for base in error.__mro__ if base in self._kinds)

    def details_of(self, error: ServiceError) -> ProblemDetails:
        """The body of the answer."""
        return details(self.kind_of(type(error)), error.detail, error.errors)

    def __iter__(self) -> Iterator[ProblemType]:
        return iter(dict.fromkeys(self._kinds.values()))


_COMMON: dict[type[ServiceError], ProblemType] = {
    ServiceError: problems.INTERNAL_ERROR,
    NotFound: problems.NOT_FOUND,
    Conflict: problems.CONFLICT,
    TooLarge: problems.TOO_LARGE,
    InvalidField: problems.INVALID_FIELD,
    Unavailable: problems.UNAVAILABLE,
    Overloaded: problems.OVERLOADED,
    JournalFull: problems.JOURNAL_FULL,
    RecordTooLarge: problems.RECORD_TOO_LARGE,
}
