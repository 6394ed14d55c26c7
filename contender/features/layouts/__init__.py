"""Layouts: what a tile holds for an aggregation. The one place that says which bytes a feature costs.

A layout knows how its cells are made from events, how two of them merge, and their bytes; the feature service's
store/merge.lua does the same.
"""

from contender.features.layouts.bins import Bins
from contender.features.layouts.distinct import Distinct
from contender.features.layouts.last_n import LastN
from contender.features.layouts.layout import COUNT, HEAD, LAST_TIME, TILE, Cell, Layout, Pair
from contender.features.layouts.spread import Spread
from contender.features.layouts.sums import Sums

__all__ = [
    "COUNT",
    "HEAD",
    "LAST_TIME",
    "MARKS_BYTES",
    "MOST_RING_BYTES",
    "TILE",
    "Bins",
    "Cell",
    "Distinct",
    "LastN",
    "Layout",
    "Pair",
    "Spread",
    "Sums",
]

MARKS_BYTES = 128
"""Bytes behind the tiles, for the offsets of history and 15 partitions; as much again for 16 more."""

MOST_RING_BYTES = 512 * 1024
"""Most bytes of an entity for one feature's column: Redis answers them in one piece."""
