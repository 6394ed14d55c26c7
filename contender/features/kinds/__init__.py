"""The kinds of aggregations, one module each: definition, tiles, value online and offline, words.

A further kind is a module, its import and its line in `__all__`.
"""

from collections.abc import Mapping

from contender.features.kinds.count import count
from contender.features.kinds.distinct_count import distinct_count
from contender.features.kinds.first import first
from contender.features.kinds.kind import Aggregation
from contender.features.kinds.last import last
from contender.features.kinds.last_n import last_n
from contender.features.kinds.max import max  # noqa: A004 - as polars and SQL call it
from contender.features.kinds.mean import mean
from contender.features.kinds.min import min  # noqa: A004
from contender.features.kinds.quantile import quantile
from contender.features.kinds.ratio import ratio
from contender.features.kinds.std import std
from contender.features.kinds.sum import sum  # noqa: A004

__all__ = (
    "count",
    "distinct_count",
    "first",
    "last",
    "last_n",
    "max",
    "mean",
    "min",
    "quantile",
    "ratio",
    "std",
    "sum",
)
"""The functions of the kinds, by which people define features; each is a class method of its kind."""

KINDS: Mapping[str, type[Aggregation]] = {kind.kind: kind for kind in (globals()[name].__self__ for name in __all__)}
"""The kinds by name."""
