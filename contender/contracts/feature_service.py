"""The feature service's calls: events, definitions and online features."""

from contender.contracts.problems import ProblemType

UNKNOWN_VERSION = ProblemType("unknown-version", 404, "No version of a view has that label.")
VERSION_IN_USE = ProblemType(
    "version-in-use", 409, "A version can't be retired: the definitions, or another version, need it."
)
CHECK_RUNNING = ProblemType(
    "check-running",
    409,
    "Served values are being checked already: a check reads the whole topic, so one runs at a time.",
)
UNKNOWN_FEATURE = ProblemType("unknown-feature", 422, "A reference names no view, feature or feature service.")
UNKNOWN_SOURCE = ProblemType("unknown-source", 422, "No event source has that name.")
INVALID_EVENT = ProblemType("invalid-event", 422, "An event does not fit its source's schema.")
INVALID_DEFINITIONS = ProblemType(
    "invalid-definitions", 422, "The definitions' module can't be read as it is now; what was read before goes on."
)
