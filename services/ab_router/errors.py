"""What the router refuses or can't do.

Problem
├── UnknownModelError        404
├── UnknownExperimentError   404
├── ExperimentExistsError    409
├── ExperimentStateError     409  it is not in the state that this needs
├── ModelUnavailableError    503  the champion can't answer
└── ExperimentStoreError     503  the database of experiments does not answer
"""

from shared.problems import Conflict, NotFound, Unavailable


class UnknownModelError(NotFound):
    """No model of that name is registered."""

    slug = "unknown-model"


class UnknownExperimentError(NotFound):
    """No experiment has that name."""

    slug = "unknown-experiment"


class ExperimentExistsError(Conflict):
    """There is an experiment of that name."""

    slug = "experiment-exists"


class ExperimentStateError(Conflict):
    """The experiment is not in the state that this needs."""

    slug = "experiment-state"


class ModelUnavailableError(Unavailable):
    """The champion can't answer, and no fallback is declared."""

    slug = "model-unavailable"


class ExperimentStoreError(Unavailable):
    """The database of experiments does not answer."""

    slug = "experiments-unavailable"
