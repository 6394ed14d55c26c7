"""Errors of the feedback service as callers see them.

ServiceError
├── UnknownExperiment   neither the experiment nor a prediction for it was ever seen
├── NoVintage           no results are kept that are as old as the caller asks for
├── NoRecord            the model has no matured rows to plan from
├── InvalidPlan         a field of a plan is out of range
├── InvalidMoment       a time that results are asked for is out of range
├── TooManyOutcomes     more outcomes in one call than allowed
├── InvalidFeedback     an id, an outcome or a time is out of range
└── ResultsUnavailable  the store of the results, or that of verdicts, can't be reached
"""

from contender.contracts import feedback_service as contract
from contender.contracts.problems import ProblemType
from shared.errors import InvalidField, NotFound, ServiceError, TooLarge, Unavailable


class UnknownExperiment(NotFound):
    """Neither the experiment nor a prediction for it was ever seen."""


class NoVintage(NotFound):
    """No results are kept that are as old as the caller asks for."""


class NoRecord(NotFound):
    """The model has no matured rows to plan from."""


class InvalidPlan(InvalidField):
    """A field of a plan is out of range, or does not fit the others."""


class InvalidMoment(InvalidField):
    """A time that results are asked for is out of range."""


class TooManyOutcomes(TooLarge):
    """More outcomes in one call than allowed."""


class InvalidFeedback(InvalidField):
    """An id, an outcome or a time is out of range."""


class ResultsUnavailable(Unavailable):
    """The store of the results, or that of verdicts, can't be reached or is too slow."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after_s=5)


PROBLEMS: dict[type[ServiceError], ProblemType] = {
    UnknownExperiment: contract.UNKNOWN_EXPERIMENT,
    NoVintage: contract.NO_VINTAGE,
    NoRecord: contract.NO_RECORD,
    TooManyOutcomes: contract.TOO_MANY_OUTCOMES,
    InvalidFeedback: contract.INVALID_FEEDBACK,
    ResultsUnavailable: contract.RESULTS_UNAVAILABLE,
}
"""The problem that callers see for each error."""
