"""What slices of a history hold: sums, extremes, spreads, quantiles and numbers of different values."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from contender.features.bins import BINS, VALUES, bin_of, rank_of
from contender.features.distinct import estimate
from contender.features.offline.spans import Indices, Spans
from contender.features.tiles import Floats


def folded(values: Floats, spans: Spans, combine: np.ufunc, nothing: float) -> Floats:
    """Sums, least or greatest values of rows.

    Args:
        values: of the history, shape (events,).
        spans: what each row sees.
        combine: np.add, np.minimum or np.maximum.
        nothing: what leaves a value as it is when combined with it; stands for rows that see nothing.

    Returns:
        Shape (rows,).
    """
    held = np.full(len(spans.row), nothing)
    blocks, level = values, 0
    for at, which, block in _blocks(spans):
        if at > level:
            whole = len(blocks) // 2 * 2
            blocks, level = combine(blocks[0:whole:2], blocks[1:whole:2]), at
        held[which] = combine(held[which], blocks[block])
    found = np.full(spans.rows, nothing)
    combine.at(found, spans.row, held)
    return found


def spreads(values: Floats, spans: Spans) -> Floats:
    """Sums of squared deviations from each row's mean, shape (rows,); 0 where a row sees no event.

    Those within the blocks, and those of the blocks' own means. Nothing cancels, as all terms are positive, and means
    are differences from a row's first value: far from zero, sums are rounded to more than values differ.
    """
    earliest = spans.earliest()
    first = np.where(earliest < 0, 0.0, values[earliest]) if len(values) else np.zeros(spans.rows)
    excess, held = np.zeros(len(spans.row)), np.zeros(len(spans.row))
    for size, which, apart, _ in _deviations(values, spans, first):
        excess[which] += size * apart
    means = np.zeros(spans.rows)
    np.add.at(means, spans.row, excess)
    means /= np.maximum(spans.count, 1)
    for size, which, apart, spread in _deviations(values, spans, first):
        from_mean = apart - means[spans.row[which]]
        held[which] += spread + size * from_mean * from_mean
    found = np.zeros(spans.rows)
    np.add.at(found, spans.row, held)
    return found


def quantiles(values: Floats, spans: Spans, q: float) -> Floats:
    """What stands for the bin that the quantile q of each row lies in, shape (rows,); any value for empty rows.

    Bit by bit of the bins, the highest first: the events with a 0 are moved before those with a 1, and each row goes
    where its rank lies. Source: Claude, Navarro, Ordonez, The wavelet matrix, 2015.
    """
    bins, low, high = bin_of(values), spans.low, spans.high
    rank = rank_of(spans.count, q) - 1
    found = np.zeros(spans.rows, dtype=np.int64)
    for bit in reversed(range((BINS - 1).bit_length())):
        is_one = (bins >> bit) & 1 == 1
        zeros = np.append(0, np.cumsum(~is_one))
        zeros_low, zeros_high = zeros[low], zeros[high]
        below = spans.summed(zeros_high - zeros_low)
        above = rank >= below
        rank = np.where(above, rank - below, rank)
        found += above.astype(np.int64) << bit
        ones = above[spans.row]
        low = np.where(ones, zeros[-1] + low - zeros_low, zeros_low)
        high = np.where(ones, zeros[-1] + high - zeros_high, zeros_high)
        bins = np.concatenate([bins[~is_one], bins[is_one]])
    return VALUES[np.minimum(found, BINS - 1)]


def distinct_counts(hashes: Floats, spans: Spans, exact_to: int) -> Indices:
    """The number of different values of each row, from the `exact_to` least hashes; shape (rows,)."""
    found = np.zeros(spans.rows, dtype=np.int64)
    ends = np.cumsum(np.bincount(spans.row, minlength=spans.rows)).tolist()
    lows, highs = spans.low.tolist(), spans.high.tolist()
    for row, (start, end) in enumerate(pairwise([0, *ends])):
        slices = [hashes[lows[span] : highs[span]] for span in range(start, end)]
        if slices:
            different = np.unique(slices[0] if len(slices) == 1 else np.concatenate(slices))
            many = len(different) >= exact_to
            found[row] = estimate(different[None, :exact_to])[0] if many else len(different)
    return found


def _deviations(values: Floats, spans: Spans, first: Floats) -> Iterator[tuple[int, Indices, Floats, Floats]]:
    """What slices are made of: size of blocks, slices, differences of the blocks' means from `first`, and spreads.

    `first` has shape (rows,). A spread is the sum of squared deviations from the block's own mean; blocks merge as in
    Chan, Golub, LeVeque, Updating formulae, 1979. `excess` is the sum of the differences from a block's first value.
    """
    begins, excess, spread, level = values, np.zeros(len(values)), np.zeros(len(values)), 0
    for at, which, block in _blocks(spans):
        if at > level:
            whole, half = len(begins) // 2 * 2, 1 << level
            one, other = slice(0, whole, 2), slice(1, whole, 2)
            step = begins[other] - begins[one]
            between = step + (excess[other] - excess[one]) / half
            spread = spread[one] + spread[other] + between * between * (half / 2)
            excess = excess[one] + excess[other] + half * step
            begins, level = begins[one], at
        size = 1 << at
        apart = begins[block] - first[spans.row[which]] + excess[block] / size
        yield size, which, apart, spread[block]


def _blocks(spans: Spans) -> Iterator[tuple[int, Indices, Indices]]:
    """What slices are made of: (level, slices, blocks), where block i of level n is the events [i, i + 1) * 2^n.

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
