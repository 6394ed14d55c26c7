"""How far two variants answer the same rows alike: known with the scores, whatever the outcome."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from contender.contracts.tasks import task_named
from services.feedback_service.domain.entries import LARGEST_ERROR, BlockEntry
from services.feedback_service.domain.snapshots import GroupSnapshot
from services.feedback_service.domain.sums.exact import ExactSums
from services.feedback_service.domain.sums.fixed_point import to_fixed_point
from services.feedback_service.domain.sums.mean import ClusteredSums

AGREEMENT = "agreement"
"""The ledger of a paired group: all rows with two scores, labelled or not."""

EQUAL_LABELS, SCORE_DIFFERENCE = "equal labels", "score difference"
"""Its totals: rows that both give the same label, and the absolute difference of the two scores."""


def agreement_of(served: BlockEntry, shadow: BlockEntry, rows: Sequence[int]) -> ExactSums:
    """What rows of a block add to AGREEMENT, all at once: they are never taken back.

    Scores of several classes differ by half the sum over classes, the share of probability that is elsewhere.

    Args:
        served: the block of the rows.
        shadow: the same block with the scores and labels of the other variant.
        rows: numbers of the rows.
    """
    indexes = list(rows)
    distances = np.abs(served.scores[indexes] - shadow.scores[indexes])
    if served.width:
        distances = distances.sum(axis=1) / 2.0
    values = {SCORE_DIFFERENCE: np.minimum(distances, LARGEST_ERROR)}
    if task_named(served.task).has_classes:
        values[EQUAL_LABELS] = served.answered_classes[indexes] == shadow.answered_classes[indexes]
    buckets = served.buckets[indexes]
    counts = np.bincount(buckets)
    filled = np.flatnonzero(counts)
    sums = ExactSums(Counter(dict(zip(filled.tolist(), counts[filled].tolist(), strict=True))))
    for name, of_rows in values.items():
        totals = np.bincount(buckets, weights=of_rows)[filled].tolist()
        sums.totals[name].update(dict(zip(filled.tolist(), map(to_fixed_point, totals), strict=True)))
    return sums


def agreement_sums(groups: Sequence[GroupSnapshot], challenger: str) -> dict[str, ClusteredSums]:
    """EQUAL_LABELS and SCORE_DIFFERENCE of all rows that a challenger and the champion have both scored."""
    found: dict[str, ClusteredSums] = {}
    for group in groups:
        for cohort in group.cohorts if group.paired and group.variant == challenger else ():
            if (sums := cohort.ledgers.get(AGREEMENT)) is not None:
                for name, totals in sums.totals.items():
                    found[name] = found.get(name, ClusteredSums()) + ClusteredSums.read(sums.rows, totals)
    return found
