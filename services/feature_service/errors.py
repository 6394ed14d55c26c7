"""What a caller of the feature service can get wrong, beyond what `shared.problems` names.

ServiceError
├── NotFound
│   └── UnknownVersion   no version of a view has that label
├── Conflict
│   ├── VersionInUse     a version can't be retired
│   └── CheckRunning     served values are being checked already
└── InvalidField
    ├── UnknownFeature   a reference names no view or feature
    ├── UnknownSource    no event source has that name
    ├── InvalidEvent     an event does not fit its source's schema
    └── InvalidDefinitions  the definitions' module can't be read as it is now
"""

from contender.contracts import feature_service as contract
from contender.contracts.problems import ProblemType
from shared.errors import Conflict, InvalidField, NotFound, ServiceError


class UnknownVersion(NotFound):
    """No version of a view has that label."""


class VersionInUse(Conflict):
    """A version can't be retired: the definitions, or another version, need it."""


class CheckRunning(Conflict):
    """Served values are being checked already: a check reads the whole topic, so one runs at a time."""


class UnknownFeature(InvalidField):
    """A reference names no view, feature or feature service."""


class UnknownSource(InvalidField):
    """No event source has that name."""


class InvalidEvent(InvalidField):
    """An event does not fit its source's schema."""


class InvalidDefinitions(InvalidField):
    """The definitions' module can't be read as it is now; what was read before goes on."""


PROBLEMS: dict[type[ServiceError], ProblemType] = {
    UnknownVersion: contract.UNKNOWN_VERSION,
    VersionInUse: contract.VERSION_IN_USE,
    CheckRunning: contract.CHECK_RUNNING,
    UnknownFeature: contract.UNKNOWN_FEATURE,
    UnknownSource: contract.UNKNOWN_SOURCE,
    InvalidEvent: contract.INVALID_EVENT,
    InvalidDefinitions: contract.INVALID_DEFINITIONS,
}
"""What callers are told of each."""
