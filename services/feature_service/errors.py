"""What a caller of the feature service can get wrong, beyond what `shared.problems` names.

Problem
├── NotFound
│   └── UnknownVersion   no version of a view has that label
├── Conflict
│   ├── VersionInUse     a version can't be retired
│   └── CheckRunning     served values are being checked already
└── Unprocessable
    ├── UnknownFeature   a reference names no view or feature
    ├── UnknownSource    no event source has that name
    ├── InvalidEvent     an event does not fit its source's schema
    └── InvalidDefinitions  the definitions' module can't be read as it is now
"""

from shared.problems import Conflict, NotFound, Unprocessable


class UnknownVersion(NotFound):
    """No version of a view has that label."""

    slug = "unknown-version"


class VersionInUse(Conflict):
    """A version can't be retired: the definitions, or another version, need it."""

    slug = "version-in-use"


class CheckRunning(Conflict):
    """Served values are being checked already: a check reads the whole topic, so one runs at a time."""

    slug = "check-running"


class UnknownFeature(Unprocessable):
    """A reference names no view, feature or feature service."""

    slug = "unknown-feature"


class UnknownSource(Unprocessable):
    """No event source has that name."""

    slug = "unknown-source"


class InvalidEvent(Unprocessable):
    """An event does not fit its source's schema."""

    slug = "invalid-event"


class InvalidDefinitions(Unprocessable):
    """The definitions' module can't be read as it is now; what was read before goes on."""

    slug = "invalid-definitions"
