"""Mergeable histograms of scores per class, and the area under the ROC curve that they give."""

from dataclasses import dataclass, field
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from services.feedback_service.domain.sums import Estimate

BINS = 1000
"""Equal bins over [0, 1]: an AUC from them differs from the exact one by less than its standard error by far."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreHistogram:
    """Scores of one variant of a binary model, counted by bin and outcome; both arrays have shape (BINS,)."""

    negatives: Floats = field(default_factory=lambda: np.zeros(BINS))
    positives: Floats = field(default_factory=lambda: np.zeros(BINS))

    @classmethod
    def of(cls, outcomes: Floats, scores: Floats) -> "ScoreHistogram":
        """The histogram of one probability per row with its outcome, 0 or 1; both have shape (rows,).

        Raises:
            ValueError: A score is not a probability.
        """
        if not np.all((scores >= 0.0) & (scores <= 1.0)):
            raise ValueError("scores must be probabilities between 0 and 1")
        bins = np.minimum((scores * BINS).astype(np.intp), BINS - 1)
        positive = outcomes == 1.0
        negatives, positives = (np.bincount(bins[rows], minlength=BINS) for rows in (~positive, positive))
        return cls(negatives.astype(np.float64), positives.astype(np.float64))

    def __add__(self, other: "ScoreHistogram") -> "ScoreHistogram":
        """The histogram of the rows of both."""
        return ScoreHistogram(self.negatives + other.negatives, self.positives + other.positives)

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.negatives.sum() + self.positives.sum())

    @property
    def auc(self) -> Estimate:
        """The probability that a positive outscores a negative, with its standard error; scores in one bin tie.

        Source: DeLong, DeLong, Clarke-Pearson, Comparing the areas under two or more correlated ROC curves, Biometrics
        1988: the variance is that of the placements of the positives among the negatives, divided by the positives,
        plus the same the other way round. The value is not a number while a class is missing.
        """
        negatives, positives = self.negatives.sum(), self.positives.sum()
        if min(negatives, positives) == 0:
            return Estimate(nan, inf, self.n)
        beaten = (np.cumsum(self.negatives) - 0.5 * self.negatives) / negatives
        beating = 1.0 - (np.cumsum(self.positives) - 0.5 * self.positives) / positives
        value = float(beaten @ self.positives / positives)
        variance = _variance_of_mean(beaten, self.positives) + _variance_of_mean(beating, self.negatives)
        return Estimate(value, sqrt(variance), self.n)


def _variance_of_mean(values: Floats, counts: Floats) -> float:
    n = float(counts.sum())
    if n < 2:  # noqa: PLR2004 - a variance takes two values
        return inf
    mean = values @ counts / n
    return float(np.square(values - mean) @ counts / (n - 1.0) / n)
