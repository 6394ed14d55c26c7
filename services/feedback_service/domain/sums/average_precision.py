"""Average precision, from histograms of the scores of each class."""

import numpy as np

from services.feedback_service.domain.sums.estimates import Floats
from services.feedback_service.domain.sums.score_histogram import ScoreHistogram


class AveragePrecision(ScoreHistogram):
    """Histograms of scores that say how pure the highest ones are; rows in one bin tie."""

    __slots__ = ()

    @staticmethod
    def statistic(counts: Floats) -> Floats:
        """The precision at each score, averaged over the positives, as `sklearn.metrics.average_precision_score`."""
        from_above = np.cumsum(counts[..., ::-1], axis=-1)
        rows = from_above.sum(axis=-2)
        precision = np.divide(from_above[..., 1, :], rows, out=np.zeros_like(rows), where=rows > 0.0)
        positives = counts[..., 1, ::-1]
        average: Floats = (precision * positives).sum(axis=-1) / positives.sum(axis=-1)
        return average
