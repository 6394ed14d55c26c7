"""What a tile holds for an aggregation: the one place that says which bytes a feature costs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from contender.features.aggregations import Aggregation, Kind
from contender.features.bins import BINS

LayoutName = Literal["sums", "spread", "last_n", "distinct", "bins"]
HEAD = ("tile", "count", "last_time")
"""The float64 that every tile begins with: its number, its events, and the time of the latest."""

SUMS = (*HEAD, "last", "first_time", "first", "total", "low", "high")
"""The float64 of a tile of sums."""

SPREAD = (*HEAD, "first_time", "first", "excess", "spread")
"""The float64 of a tile of a deviation. `spread` is the sum of squared deviations from the tile's own mean, `excess`
that of differences from `first`: it tells the mean where a total is rounded to more than the values differ."""


MARKS_BYTES = 128
"""What stands behind the tiles, for the offsets of history and 15 partitions; as much again for 16 more."""

MOST_RING_BYTES = 512 * 1024
"""What one entity may take for one feature's column: Redis answers in one piece."""

_BY_KIND: Mapping[Kind, LayoutName] = {
    "std": "spread",
    "last_n": "last_n",
    "distinct_count": "distinct",
    "quantile": "bins",
}
"""What is read from a layout of its own; everything else is from sums."""


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """The form of a tile. `size` is n of last_n, the hashes of distinct."""

    name: LayoutName
    size: int = 0

    @classmethod
    def of(cls, feature: Aggregation) -> "Layout":
        """The form that an aggregation reads from; not for a ratio, whose two parts have their own."""
        return cls(_BY_KIND.get(feature.kind, "sums"), feature.n or feature.exact_to)

    @property
    def cell_bytes(self) -> int:
        """Bytes of one tile."""
        head = 8 * len(HEAD)
        return {
            "sums": 8 * len(SUMS),
            "spread": 8 * len(SPREAD),
            "last_n": head + 16 * self.size,  # pairs of time and value, the latest first
            "distinct": head + 8 * self.size,  # hashes in ascending order
            "bins": head + 4 * BINS + 4 * (BINS % 2),  # unsigned 32-bit counts, whole float64s
        }[self.name]


def sharing(parts: Iterable[Aggregation]) -> list[list[Aggregation]]:
    """The parts of features in groups that are read from the same tiles: of one filter, column and layout.

    A count needs no column, so it rides along with the first sums of its filter. The last of a group has its layout.
    """
    groups: dict[tuple[str, str, Layout], list[Aggregation]] = {}
    counts: dict[str, list[Aggregation]] = {}
    for part in parts:
        where = repr(part.where)
        if part.kind == "count":
            counts.setdefault(where, []).append(part)
        else:
            groups.setdefault((where, part.column or "", Layout.of(part)), []).append(part)
    for where, counted in counts.items():
        sums = sorted(key for key in groups if key[0] == where and key[2] == Layout("sums"))
        if sums:
            groups[sums[0]][:0] = counted
        else:
            groups[where, "", Layout("sums")] = counted
    return list(groups.values())
