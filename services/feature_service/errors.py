"""Errors of the feature service as callers see them.

ServiceError
├── UnknownVersionError      no version of a view has that label
├── VersionInUseError        the definitions, or another version, need it
├── CheckRunningError        another check of served values is running
├── UnknownReferenceError    no view, feature or feature service has that name
├── UnknownSourceError       no event source has that name
├── InvalidEventError        an event does not fit its source's schema
└── InvalidDefinitionsError  the definitions can't be loaded

`StoreUnavailableError` stands beside the store, `HistoryChangedError` beside the reading of history files, and
`TooManyTilesError` beside the reading of tiles.
"""

from contender.contracts import feature_service as contract
from contender.contracts.problems import ProblemType
from shared.errors import Conflict, InvalidField, NotFound, ServiceError


class UnknownVersionError(NotFound):
    """No version of a view has that label."""


class VersionInUseError(Conflict):
    """A version can't be retired: the definitions, or another version, need it."""


class CheckRunningError(Conflict):
    """Another check of served values is running: a check reads the whole topic, so one runs at a time."""


class UnknownReferenceError(InvalidField):
    """No view, feature or feature service has that name."""


class UnknownSourceError(InvalidField):
    """No event source has that name."""


class InvalidEventError(InvalidField):
    """An event does not fit its source's schema."""


class InvalidDefinitionsError(InvalidField):
    """The definitions can't be loaded; the service keeps those it has."""


PROBLEMS: dict[type[ServiceError], ProblemType] = {
    UnknownVersionError: contract.UNKNOWN_VERSION,
    VersionInUseError: contract.VERSION_IN_USE,
    CheckRunningError: contract.CHECK_RUNNING,
    UnknownReferenceError: contract.UNKNOWN_FEATURE,
    UnknownSourceError: contract.UNKNOWN_SOURCE,
    InvalidEventError: contract.INVALID_EVENT,
    InvalidDefinitionsError: contract.INVALID_DEFINITIONS,
}
"""The problem that callers see for each error."""
