"""Errors of the router.

ServiceError
├── UnknownModelError
├── UnknownExperimentError
├── UnknownFlagError         no experiment in force has the flag's key
├── ExperimentExistsError
├── ExperimentStateError     its state does not allow the change
├── ExperimentChangedError   a newer revision than the one that the change was made for
├── DesignFixedError         a started experiment keeps its design and its allocation
├── OverlapError             another experiment could take the same units
├── NotReadyError            the traffic does not suit it
├── NotDecidedError          no verdict names the version as better
├── UnreadableEvaluationError, TargetingKeyMissingError, InvalidContextError
├── ModelUnavailableError    the champion can't answer
├── ExperimentStoreError     the database of experiments does not answer
├── RequestIdReusedError     an earlier call with the same request id had another body
└── RequestInFlightError     a call with the same request id is being answered
"""

from contender.contracts import ab_router as contract
from contender.contracts import experiments, ofrep
from contender.contracts.problems import ProblemType
from shared.errors import Conflict, InvalidField, NotFound, ServiceError, Unavailable


class UnknownModelError(NotFound):
    """No model of that name is registered."""


class UnknownExperimentError(NotFound):
    """No experiment has that name, or it has no such revision."""


class UnknownFlagError(NotFound):
    """No experiment in force has the flag's key as its name."""


class UnreadableEvaluationError(ServiceError):
    """The body of an evaluation is not JSON."""


class TargetingKeyMissingError(ServiceError):
    """The context of an evaluation names no unit."""


class InvalidContextError(ServiceError):
    """The context of an evaluation is missing, mistyped or out of range."""


class ExperimentExistsError(Conflict):
    """An experiment has that name already."""


class ExperimentStateError(Conflict):
    """The experiment's state does not allow the change."""


class ExperimentChangedError(Conflict):
    """The experiment has a newer revision than the one that the change was made for."""


class DesignFixedError(Conflict):
    """What an experiment measures and how it splits its units can't be replaced after its start."""


class OverlapError(Conflict):
    """Another experiment on the model could take the same units."""


class NotReadyError(Conflict):
    """The traffic of the last day does not suit the experiment."""


class NotDecidedError(Conflict):
    """No verdict names the version as better."""


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
    UnknownFlagError: ofrep.UNKNOWN_FLAG,
    UnreadableEvaluationError: ofrep.UNREADABLE_EVALUATION,
    TargetingKeyMissingError: ofrep.TARGETING_KEY_MISSING,
    InvalidContextError: ofrep.INVALID_CONTEXT,
    ExperimentExistsError: experiments.EXPERIMENT_EXISTS,
    ExperimentStateError: experiments.EXPERIMENT_STATE,
    ExperimentChangedError: experiments.EXPERIMENT_CHANGED,
    DesignFixedError: experiments.DESIGN_FIXED,
    OverlapError: experiments.OVERLAP,
    NotReadyError: experiments.NOT_READY,
    NotDecidedError: experiments.NOT_DECIDED,
    ModelUnavailableError: contract.MODEL_UNAVAILABLE,
    ExperimentStoreError: experiments.EXPERIMENTS_UNAVAILABLE,
    RequestIdReusedError: contract.REQUEST_ID_REUSED,
    RequestInFlightError: contract.REQUEST_IN_FLIGHT,
}
"""The problem that callers get for each."""
