"""Whether arms may be compared: the traffic splits as configured, and labels arrive alike. Valid at every look."""

from collections.abc import Sequence
from math import exp, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from services.feedback_service.domain.confidence import confidence_sequence, p_value
from services.feedback_service.domain.sums.estimates import MIN_OBSERVATIONS
from services.feedback_service.domain.sums.mean import ClusteredSums, compare_clustered
from services.feedback_service.domain.sums.units import BUCKETS

PRIOR_STRENGTH = 100.0
"""Rows that the prior's trust in the configured split is worth; few enough to detect a broken split soon."""

BLOCKING_P = 0.001
"""A split, or a label arrival, less likely than this withholds the verdict; the tests are tuned for it."""

BLOCKING_TUNING_N = 5000
"""Rows at which a blocking test is sharpest: about as many as a verdict takes."""

MIN_MATURED_ROWS = 100
"""Matured rows that each arm needs before it is tested: the intervals rest on the central limit theorem."""

Floats = NDArray[np.float64]


def log_split_e_value(counts: ArrayLike, shares: ArrayLike) -> float:
    """The evidence that one epoch's rows do not follow the configured split, as the logarithm of an e-value.

    Source: Lindon and Malek, Anytime-valid inference for multinomial count data, arXiv 2011.03567. A Dirichlet prior of
    strength k around the configured shares t against t itself: B(k t + c) / B(k t) / prod t^c for counts c.

    Args:
        counts: Independent rows (or units) per variant, shape (variants,).
        shares: The configured shares, of any sum, shape (variants,).

    Returns:
        The logarithm; infinite where a variant of share zero has rows.

    Raises:
        ValueError: The shapes differ, or no share is positive.
    """
    observed, expected = np.asarray(counts, dtype=np.float64), _normalised(shares)
    if observed.shape != expected.shape:
        raise ValueError(
            f"counts and shares must have one entry per variant, not {observed.shape} and {expected.shape}"
        )
    served = expected > 0.0
    if np.any(observed[~served] > 0.0):
        return inf
    observed, expected = observed[served], expected[served]
    prior = PRIOR_STRENGTH * expected
    return float(_log_beta(prior + observed) - _log_beta(prior) - observed @ np.log(expected))


def split_p(epochs: Sequence[tuple[ArrayLike, ArrayLike]]) -> float:
    """The p-value of the split over epochs of (counts, shares): the e-values multiply. Rows must be independent.

    The p-value is that of one look; over looks report the running minimum.
    """
    return exp(min(0.0, -sum(log_split_e_value(counts, shares) for counts, shares in epochs)))


def clustered_split_p(epochs: Sequence[tuple[ArrayLike, ArrayLike]]) -> float:
    """The p-value of the split where units repeat, over epochs of (rows, shares).

    A unit stays with its variant, so its rows are no independent draws, and the multinomial test above would take one
    busy unit for a broken split. Here a variant's surplus over its share is tested against zero with
    `confidence.p_value`. The challengers share alpha (Bonferroni); the champion's surplus is their deficit.

    Args:
        epochs: Per epoch the rows per variant and hash bucket of the unit, shape (variants, BUCKETS), and the shares,
            shape (variants,).

    Returns:
        The p-value of one look; 1 while too few buckets have rows.
    """
    rows = np.array([np.asarray(table, dtype=np.float64) for table, _ in epochs])
    shares = np.array([_normalised(configured) for _, configured in epochs])
    if rows.size == 0 or np.count_nonzero(rows.sum(axis=(0, 1))) < MIN_OBSERVATIONS:
        return 1.0
    n = int(rows.sum())
    surplus = (rows - shares[:, :, np.newaxis] * rows.sum(axis=1, keepdims=True)).sum(axis=0)
    deviations = np.sqrt(np.maximum(_expected_variance(rows, shares), np.square(surplus).sum(axis=1)))
    tested = (deviations > 0.0) & (np.arange(len(deviations)) > 0)
    if not tested.any():
        return 1.0
    totals = surplus.sum(axis=1)[tested]
    p = p_value(totals / n, deviations[tested] / n, n, alpha=BLOCKING_P, tuning_n=BLOCKING_TUNING_N)
    return float(min(1.0, p.min() * len(totals)))


def label_arrival(epochs: Sequence[tuple[ClusteredSums, ClusteredSums]]) -> float | None:
    """The p-value of labels arriving alike in both arms.

    `epochs` are pairs (champion, challenger): per bucket the matured rows and the labels.

    The null is that a matured row has a label with the same probability in either arm, and the test is the confidence
    sequence on the difference of the two shares. The other candidate, the split's e-value on the labelled counts with
    the matured counts as expected split, draws without replacement from the matured rows: where 95 % have a label its
    counts vary 20 times less than the multinomial says, so it is safe but blind: 95 % against 90 % over 20,000 rows is
    found in 0.3 % of runs, here in all, half of them by row 2,200. It would also take the rows of a unit, whose labels
    tend to come or stay away together, for so many independent draws.

    It holds for experiments whose missing labels are excluded. Where a missing label means negative, a label is the
    outcome itself and a better challenger must have more of them. Called with (labels, labels after the window) of
    older cohorts it tests that the window cuts the tail of late labels alike, in both kinds of experiment.

    Returns:
        None while an arm has fewer than MIN_MATURED_ROWS, or too few units.
    """
    comparison = compare_clustered(epochs)
    if comparison is None or min(comparison.champion.n, comparison.challenger.n) < MIN_MATURED_ROWS:
        return None
    return confidence_sequence(comparison.effect, alpha=BLOCKING_P, tuning_n=BLOCKING_TUNING_N).p


def _expected_variance(rows: Floats, shares: Floats) -> Floats:
    """The variance of each variant's surplus under the configured split, shape (variants,).

    It is t (1 - t) times the sum of the squared row counts of the units. The buckets estimate that sum without the
    variants, by the spread of rows over buckets, since units are hashed at random. The observed surpluses alone would
    not do: a variant of 1 % that has no row among the first hundred shows hardly any variance. Epochs are added before
    squaring, since a unit that returns brings its surplus again.
    """
    per_bucket = rows.sum(axis=1)
    spread = per_bucket - per_bucket.mean(axis=1, keepdims=True)
    scaled = np.einsum("ev,eb->vb", np.sqrt(shares * (1.0 - shares)), spread)
    variance: Floats = np.square(scaled).sum(axis=1) * BUCKETS / (BUCKETS - 1)
    return variance


def _normalised(shares: ArrayLike) -> Floats:
    array = np.asarray(shares, dtype=np.float64)
    if not array.sum() > 0.0:
        raise ValueError("at least one variant must have a positive share")
    normalised: Floats = array / array.sum()
    return normalised


def _log_beta(parameters: Floats) -> float:
    """The logarithm of the multivariate beta function."""
    return float(gammaln(parameters).sum() - gammaln(parameters.sum()))
