"""The area under the ROC curve, from histograms of the scores of each class."""

import numpy as np

from services.feedback_service.domain.sums.estimates import Floats
from services.feedback_service.domain.sums.score_histogram import ScoreHistogram


class AreaUnderCurve(ScoreHistogram):
    """Histograms of scores that say how often a positive row outscores a negative one; rows in one bin tie."""

    __slots__ = ()

    @staticmethod
    def statistic(counts: Floats) -> Floats:
        """The probability that a positive outscores a negative (Mann-Whitney)."""
        negatives, positives = counts[..., 0, :], counts[..., 1, :]
        beaten = np.cumsum(negatives, axis=-1) - 0.5 * negatives
        pairs = negatives.sum(axis=-1) * positives.sum(axis=-1)
        area: Floats = (beaten * positives).sum(axis=-1) / pairs
        return area
