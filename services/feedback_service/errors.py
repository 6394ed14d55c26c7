"""Errors of the feedback service as callers see them.

Problem
├── UnknownExperiment   404  neither the experiment nor a prediction for it was ever seen
├── TooManyOutcomes     413  more outcomes in one call than allowed
├── InvalidFeedback     422  an id, an outcome or a time can't be what it must be
└── ResultsUnavailable  503  the store of the results can't be reached
"""

from shared.problems import NotFound, TooLarge, Unavailable, Unprocessable


class UnknownExperiment(NotFound):
    """Neither the experiment nor a prediction for it was ever seen."""

    slug = "unknown-experiment"


class TooManyOutcomes(TooLarge):
    """More outcomes in one call than allowed."""

    slug = "too-many-outcomes"


class InvalidFeedback(Unprocessable):
    """An id, an outcome or a time can't be what it must be."""

    slug = "invalid-feedback"


class ResultsUnavailable(Unavailable):
    """The store of the results can't be reached, or is too slow."""

    slug = "results-unavailable"
