"""Label arrival: do the labels of matured rows come alike in both arms? Valid at every look."""

from collections.abc import Sequence

from services.feedback_service.domain.confidence import confidence_sequence
from services.feedback_service.domain.split import BLOCKING_P, BLOCKING_TUNING_N
from services.feedback_service.domain.sums.mean import ClusteredSums, compare_clustered

MIN_MATURED_ROWS = 100
"""Matured rows that each arm needs before it is tested: the intervals rest on the central limit theorem."""


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
