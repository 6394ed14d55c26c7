"""Errors of the router.

ServiceError
├── UnknownModelError
├── UnknownExperimentError
├── ExperimentExistsError
├── ExperimentStateError     its state does not allow the change
├── ModelUnavailableError    the champion can't answer
├── ExperimentStoreError     the database of experiments does not answer
├── RequestIdReusedError     an earlier call with the same request id had another body
└── RequestInFlightError     a call with the same request id is being answered
"""

from contender.contracts import ab_router as contract
from contender.contracts import experiments
from contender.contracts.problems import ProblemType
from shared.errors import Conflict, InvalidField, NotFound, ServiceError, Unavailable


class UnknownModelError(NotFound):
    """No model of that name is registered."""


class UnknownExperimentError(NotFound):
    """No experiment has that name."""


class ExperimentExistsError(Conflict):
    """An experiment has that name already."""


class ExperimentStateError(Conflict):
    """The experiment's state does not allow the change."""


class ModelUnavailableError(Unavailable):
    """The champion can't answer, and no fallback is declared."""


class ExperimentStoreError(Unavailable):
    """The database of experiments does not answer."""


class RequestIdReusedError(InvalidField):
    """An earlier call with the same request id had another body."""


class RequestInFlightError(Unavailable):
    """A call with the same request id is being answered."""


PROBLEMS: dict[type[ServiceError], ProblemType] = {
    UnknownModelError: contract.UNKNOWN_MODEL,
    UnknownExperimentError: experiments.UNKNOWN_EXPERIMENT,
    ExperimentExistsError: experiments.EXPERIMENT_EXISTS,
    ExperimentStateError: experiments.EXPERIMENT_STATE,
    ModelUnavailableError: contract.MODEL_UNAVAILABLE,
    ExperimentStoreError: experiments.EXPERIMENTS_UNAVAILABLE,
    RequestIdReusedError: contract.REQUEST_ID_REUSED,
    RequestInFlightError: contract.REQUEST_IN_FLIGHT,
}
"""The problem that callers get for each."""
