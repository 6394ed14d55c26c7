"""Rings: where the tiles of an entity lie. Windows that differ only in length share one.

A ring is one byte string per entity: `slots` cells of 8 float64 (little-endian), tile n in slot n mod `slots`, then
one float64 per source partition: the offset mark, one more than the last offset applied (0: none).
Marks stand behind the cells, so a topic may gain partitions without any ring being read wrongly.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from shared.features.catalogue import Catalogue
from shared.features.definitions import FeatureView

TILE, COUNT, TOTAL, SPREAD, LOW, HIGH, LAST_TIME, LAST = range(8)
"""The fields of a cell. SPREAD is the sum of squared deviations from the tile's own mean."""

CELL_BYTES = 8 * 8
MARK_BYTES = 8
# Stands in every key: a change of what the bytes mean starts new rings, and the old ones expire.
_LAYOUT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Ring:
    """The tiles of one column of a view (or of its bare events) at one hop.

    `prefix` is all of a key but the entity. It begins with `f:{view}:`, whose braces keep a view's keys in one slot
    of a Redis cluster, so that a script or an MGET over them is allowed.
    """

    view: str
    source: str
    join_key: str
    column: str | None
    hop_s: int
    slots: int
    ttl_s: int
    prefix: str

    @classmethod
    def of(cls, view: FeatureView, column: str | None) -> Self:
        """The ring that holds what a view's features need of one column."""
        longest_s = max(feature.window_s for feature in view.features)
        slots = longest_s // view.hop_s + view.lateness_tiles + 1
        layout = f"{_LAYOUT_VERSION}/{view.source.name}/{view.entity.join_key}/{column or ''}/{view.hop_s}/{slots}"
        digest = hashlib.sha256(layout.encode()).hexdigest()[:8]
        return cls(
            view=view.name,
            source=view.source.name,
            join_key=view.entity.join_key,
            column=column,
            hop_s=view.hop_s,
            slots=slots,
            ttl_s=(slots + 1) * view.hop_s,
            prefix=f"f:{{{view.name}}}:{digest}:",
        )

    @property
    def cells_bytes(self) -> int:
        """Length of the cells: a value's bytes before its offset marks."""
        return self.slots * CELL_BYTES

    def key(self, entity: str) -> str:
        """The key of an entity's ring."""
        return self.prefix + entity


@dataclass(frozen=True, slots=True)
class Rings:
    """Every ring of a catalogue: by the view and column that read it, and by the source that feeds it."""

    by_column: Mapping[tuple[str, str | None], Ring]
    by_source: Mapping[str, Sequence[Ring]]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Self:
        """Plan the rings. A count rides along in the ring of the view's first column."""
        by_column: dict[tuple[str, str | None], Ring] = {}
        by_source: dict[str, list[Ring]] = {name: [] for name in catalogue.sources}
        for view in catalogue.views.values():
            columns = sorted({feature.column for feature in view.features if feature.column is not None})
            rings = [Ring.of(view, column) for column in columns] or [Ring.of(view, None)]
            by_column.update({(view.name, ring.column): ring for ring in rings})
            by_column[view.name, None] = rings[0]
            by_source[view.source.name] += rings
        return cls(by_column, by_source)


def entity_text(value: str | int) -> str:
    """An entity as it stands in keys: 17 and "17" are the same one."""
    return str(value)
