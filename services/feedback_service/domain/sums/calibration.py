"""The expected calibration error and its reliability table, from histograms of the scores of each class."""

import numpy as np
from scipy.special import expit

from contender.contracts.feedback_service import ReliabilityBin
from services.feedback_service.domain.sums.estimates import Floats
from services.feedback_service.domain.sums.score_histogram import LOGIT_LIMIT, ScoreHistogram

RELIABILITY_BINS = 10


class CalibrationError(ScoreHistogram):
    """Histograms of scores that say how far they are from the shares of positive rows."""

    __slots__ = ()

    @staticmethod
    def statistic(counts: Floats) -> Floats:
        """The distance between mean score and share of positives in bins of equal counts, averaged over the rows.

        Source: Naeini, Cooper, Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
        """
        scores, positives, rows = _reliability(counts)
        error: Floats = np.abs(scores - positives).sum(axis=-1) / rows.sum(axis=-1)
        return error

    def reliability(self) -> list[ReliabilityBin]:
        """The table behind the error: RELIABILITY_BINS bins of about equal counts, by score. Empty ones are left out.

        Rows with one score stay together, so the bins of a model with few scores are uneven.
        """
        scores, positives, rows = _reliability(self.counts.sum(axis=0))
        return [
            ReliabilityBin(float(score / n), float(positive / n), int(n))
            for score, positive, n in zip(scores, positives, rows, strict=True)
            if n > 0.0
        ]


def _reliability(counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Sums of scores, positives and rows by reliability bin, each of shape (..., RELIABILITY_BINS).

    The rows of a bin of the histogram count with the score at its middle, at most 1.6 % of the odds off.
    """
    width = counts.shape[-1]
    middles = expit(LOGIT_LIMIT * ((2.0 * np.arange(width) + 1.0) / width - 1.0))
    rows = counts.sum(axis=-2).reshape(-1, width)
    total = np.maximum(rows.sum(axis=-1, keepdims=True), 1.0)
    ranks = (np.cumsum(rows, axis=-1) - 0.5 * rows) / total
    bins = np.minimum((ranks * RELIABILITY_BINS).astype(np.intp), RELIABILITY_BINS - 1)
    keys = (bins + RELIABILITY_BINS * np.arange(len(rows))[:, np.newaxis]).ravel()
    shape = (*counts.shape[:-2], RELIABILITY_BINS)
    columns = (rows * middles, counts[..., 1, :].reshape(-1, width), rows)
    scores, positives, sizes = (
        np.bincount(keys, column.ravel(), RELIABILITY_BINS * len(rows)).reshape(shape) for column in columns
    )
    return scores, positives, sizes
