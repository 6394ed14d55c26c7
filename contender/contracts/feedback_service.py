"""The feedback service's calls: feedback and results."""

from contender.contracts.problems import ProblemType

UNKNOWN_EXPERIMENT = ProblemType(
    "unknown-experiment", 404, "Neither the experiment nor a prediction for it was ever seen."
)
TOO_MANY_OUTCOMES = ProblemType("too-many-outcomes", 413, "More outcomes in one call than allowed.")
INVALID_FEEDBACK = ProblemType("invalid-feedback", 422, "An id, an outcome or a time can't be what it must be.")
RESULTS_UNAVAILABLE = ProblemType(
    "results-unavailable", 503, "The store of the results can't be reached, or is too slow."
)
