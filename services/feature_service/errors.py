"""What a caller of the feature service can get wrong, beyond what `shared.problems` names.

Problem
└── Unprocessable
    ├── UnknownFeature   a reference names no view or feature
    ├── UnknownSource    no event source has that name
    └── InvalidEvent     an event does not fit its source's schema
"""

from shared.problems import Unprocessable


class UnknownFeature(Unprocessable):
    """A reference names no view, feature or feature service."""

    slug = "unknown-feature"


class UnknownSource(Unprocessable):
    """No event source has that name."""

    slug = "unknown-source"


class InvalidEvent(Unprocessable):
    """An event does not fit its source's schema."""

    slug = "invalid-event"
