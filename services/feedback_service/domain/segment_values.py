"""Which segments a row belongs to: the values of its context at the declared keys, and the sums that hold them.

A partition tells the first `limits.SEGMENT_VALUES` values of a key apart, in the order of its topic `predictions`; rows
with others count together. The list of known values only grows, and only by the frames of that topic in their order,
each before any row of it is summed. So whether a value is known is settled for good with the first frame that has it:
either it was added then, or the list was full and stays so. A worker that reads a frame again after a crash holds a
list that later frames may have lengthened already, but each value of the earlier frame stands where it stood at the
first reading: inside, or outside a full list. A row is therefore added to and taken from the same sums at all times.
The list is stored with the experiment, before the sums of its rows.

State, per cell of a cohort or of matured rows: at most SEGMENTS keys x (SEGMENT_VALUES + 1) values x UNIT_GROUPS groups
x (1 + SEGMENT_METRICS) numbers, 51,000 with all limits reached, of about 15 bytes each when stored: 0.8 MB of the 8 MB
that fit in a record. A cohort has at most 5 numbers for each labelled row and key. Cells of days hold no segments.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from contender.contracts import limits
from contender.contracts.metrics import LABELLED, Metric
from contender.contracts.metrics.metric import MEAN
from contender.contracts.values import Scalar
from services.feedback_service.domain.snapshots import ledger_of
from services.feedback_service.domain.sums.exact import RowAdditions
from services.feedback_service.domain.sums.score_histogram import UNIT_GROUPS

SEGMENT_METRICS = 4
"""Metrics that are summed by segment: the deciding one, and the first others of the task for guardrails."""

Column = tuple[list[str], bytes]
"""The different values of a block's rows as texts, and per row (uint8) the number of its value, or one of these."""

_OTHER, _MISSING = 254, 255
"""A row whose value came after the first 254 of its block, so that it counts as unknown; one without a value."""


def segment_column(values: Sequence[Scalar]) -> Column:
    """The column of one key. Numbers and booleans are spelled as in JSON; null, and what JSON lacks, is no value."""
    numbers: dict[str, int] = {}
    codes = np.full(len(values), _MISSING, dtype=np.uint8)
    for row, value in enumerate(values):
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if isinstance(value, str) or text != "null":
            codes[row] = numbers.get(text, _OTHER) if len(numbers) >= _OTHER else numbers.setdefault(text, len(numbers))
    return list(numbers), codes.tobytes()


def note_values(known: dict[str, list[str]], columns: Mapping[str, Column]) -> None:
    """Add the values of a frame's rows to the known ones, and its keys, up to their limits."""
    for key, (values, _) in columns.items():
        if key not in known and len(known) >= limits.SEGMENTS:
            continue
        listed = known.setdefault(key, [])
        new = [value for value in values if value not in listed]
        listed += new[: limits.SEGMENT_VALUES - len(listed)]


def segment_metrics(metrics: Sequence[Metric], deciding: str) -> list[Metric]:
    """The metrics that are summed by segment: means over rows with an outcome, the deciding one first."""
    means = [metric for metric in metrics if metric.sums == MEAN and metric.ledger == LABELLED]
    return sorted(means, key=lambda metric: metric.name != deciding)[:SEGMENT_METRICS]


def segment_additions(
    columns: Mapping[str, Column],
    known: Mapping[str, Sequence[str]],
    metrics: Sequence[Metric],
    rows: Iterable[tuple[int, RowAdditions]],
) -> dict[str, list[RowAdditions]]:
    """What rows of a block add to the sums of their segments, by ledger.

    A row adds what it adds elsewhere, by group of units in place of the unit's bucket.

    Args:
        columns: those of the block.
        known: the known values by key.
        metrics: those that are summed by segment.
        rows: pairs (row of the block, what it adds).
    """
    kept = {metric.totals_name for metric in metrics}
    ledgers: dict[str, list[RowAdditions]] = {}
    for row, added in rows:
        totals = [(name, key % UNIT_GROUPS, units) for name, key, units in added.totals if name in kept]
        grouped = RowAdditions(added.bucket % UNIT_GROUPS, totals, added.weight)
        for key, (values, codes) in columns.items():
            code = codes[row]
            if key in known and code != _MISSING:
                is_known = code != _OTHER and values[code] in known[key]
                ledgers.setdefault(ledger_of(key, values[code] if is_known else None), []).append(grouped)
    return ledgers
