"""Sums, least and greatest values of slices of a history, put together from blocks of 1, 2, 4 … events.

A slice then costs as much as the logarithm of its events, and no sum is the difference of two larger ones.
"""

from collections.abc import Iterator

import numpy as np

from contender.features.spans import Floats, Indices, Spans


def folded(values: Floats, spans: Spans, combine: np.ufunc, nothing: float) -> Floats:
    """Sums, least or greatest values of rows.

    Args:
        values: of the history, shape (events,).
        spans: the events that each row sees.
        combine: np.add, np.minimum or np.maximum.
        nothing: the neutral value of `combine`; the result of rows that see no event.

    Returns:
        Shape (rows,).
    """
    held = np.full(len(spans.row), nothing)
    blocks, level = values, 0
    for at, which, block in blocks_of(spans):
        if at > level:
            whole = len(blocks) // 2 * 2
            blocks, level = combine(blocks[0:whole:2], blocks[1:whole:2]), at
        held[which] = combine(held[which], blocks[block])
    results = np.full(spans.rows, nothing)
    combine.at(results, spans.row, held)
    return results


def blocks_of(spans: Spans) -> Iterator[tuple[int, Indices, Indices]]:
    """The blocks that make up slices: (level, slices, blocks), where block i of level n is the events [i, i + 1) * 2^n.

    Every level comes, even where no slice takes a block of it; a slice takes a block at most once per answer.
    """
    which, low, high, level = np.arange(len(spans.row)), spans.low, spans.high, 0
    while len(which := which[low < high]):
        inside = low < high
        low, high = low[inside], high[inside]
        left, right = low & 1 == 1, high & 1 == 1
        yield level, which[left], low[left]
        yield level, which[right], high[right] - 1
        low, high, level = (low + 1) >> 1, high >> 1, level + 1
