"""Rings: where the tiles of an entity lie. Features that differ only in window or aggregation share one.

A ring is one byte string per entity: `slots` cells, tile n in slot n mod `slots`; if a feature is over all time, one
more cell, the base, which takes the tiles that newer ones replace; then float64 marks: one for history, and one per
source partition, each one more than the last offset applied (0: none). Marks come after the cells, so rings stay
readable when a topic gains partitions.
"""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import NamedTuple, Self

import msgspec

from contender.contracts.values import Scalar
from contender.features import (
    ALL_TIME,
    Aggregation,
    ColumnType,
    Condition,
    DefinitionError,
    FeatureView,
    condition_document,
    sharing,
)
from contender.features.layouts import MARKS_BYTES, Layout

MARK_BYTES = 8
HISTORY = -1
"""Stands for a partition in marks: what came from files and not from the topic."""

# Part of every key: a change of the bytes' meaning starts new rings, and the old ones expire.
_LAYOUT_VERSION = 5


@dataclass(frozen=True, eq=False)
class Ring:
    """The tiles of one column of a view (or of its bare events), through one filter, at one hop, in one layout.

    Args:
        view: the view's name.
        source: the name of the event source.
        join_keys: the columns that name an entity.
        column: what is aggregated; None for bare events.
        where: which events count.
        hop_s: width of a tile in seconds.
        slots: tiles that are held.
        layout: the form of a tile.
        has_windows: whether some feature is over a window: only those miss late events.
        has_base: whether some feature is over all time.
        reads: the columns that an event must have, with their types.
        after_s: only events after this time count; earlier ones come from history.
        history: digest of the history files; empty where there are none.
        generation: grows with every rebuild.
        retired_predecessors: number of this view's versions retired before this one; part of the digest, so that a new
            ring never reuses an abandoned key.
    """

    view: str
    source: str
    join_keys: tuple[str, ...]
    column: str | None
    where: Condition | None
    hop_s: int
    slots: int
    layout: Layout
    has_windows: bool
    has_base: bool
    reads: tuple[tuple[str, ColumnType], ...]
    after_s: float
    history: str
    generation: int
    retired_predecessors: int

    @classmethod
    def of(
        cls,
        view: FeatureView,
        parts: Sequence[Aggregation],
        layout: Layout,
        *,
        after_s: float = float("-inf"),
        history: str = "",
        generation: int = 0,
        retired_predecessors: int = 0,
    ) -> Self:
        """The ring of features that agree in column, filter and layout."""
        windows = [part for part in parts if part.window != ALL_TIME]
        columns = {part.column for part in parts if part.column is not None}
        return cls(
            view=view.name,
            source=view.source.name,
            join_keys=view.join_keys,
            column=next(iter(columns), None),
            where=parts[0].where,
            hop_s=view.hop_s,
            slots=view.slots(windows),
            layout=layout,
            has_windows=bool(windows),
            has_base=len(windows) < len(parts),
            reads=_reads(view, columns, parts[0].where),
            after_s=after_s,
            history=history,
            generation=generation,
            retired_predecessors=retired_predecessors,
        )

    @cached_property
    def digest(self) -> str:
        """Names the ring: equal for rings of the same contents."""
        identity = [
            _LAYOUT_VERSION,
            self.source,
            list(self.join_keys),
            self.column,
            condition_document(self.where),
            self.hop_s,
            self.slots,
            [self.layout.name, self.layout.size],
            self.has_base,
            [[column, kind.__name__] for column, kind in self.reads],
            repr(self.after_s),
            self.history,
            self.generation,
        ]
        if self.retired_predecessors:
            identity.append(self.retired_predecessors)
        return hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:12]

    @property
    def has_history(self) -> bool:
        """Whether the events up to `after_s` come from files."""
        return self.after_s > float("-inf")

    @property
    def name(self) -> str:
        """Names the ring among those of all views."""
        return f"{self.view}:{self.digest}"

    @property
    def cells(self) -> int:
        """Cells, the base included."""
        return self.slots + self.has_base

    @cached_property
    def cells_bytes(self) -> int:
        """Length of the cells: a value's bytes before its marks."""
        return self.cells * self.layout.cell_bytes

    @property
    def ttl_s(self) -> int:
        """Seconds until a ring that is left alone expires; 0: never, since it holds all time."""
        return 0 if self.has_base else (self.slots + 1) * self.hop_s

    def largest_bytes(self, partitions: int) -> int:
        """The most bytes of one entity, with the offset marks of history and so many partitions."""
        return self.cells_bytes + ceil(MARK_BYTES * (partitions + 1) / MARKS_BYTES) * MARKS_BYTES


class StoredRing(NamedTuple):
    """An entity's ring as a store holds it: the cells as their layout packs them, then the offset marks."""

    packed: bytes

    def offset_marks(self, ring: Ring) -> dict[int, float]:
        """By partition one more than the last offset that was merged; 0: none was."""
        number = max(0, len(self.packed) - ring.cells_bytes) // MARK_BYTES
        marks = struct.unpack_from(f"<{number}d", self.packed, ring.cells_bytes) if number else ()
        return dict(enumerate(marks[1:]))  # the first is history's


@dataclass(frozen=True, slots=True)
class Rings:
    """Every ring of the kept views: by the view (as `view@number`) and feature that reads it, and by its source."""

    by_feature: Mapping[tuple[str, Aggregation], Ring]
    by_source: Mapping[str, Sequence[Ring]]

    @classmethod
    def of(
        cls,
        views: Mapping[str, FeatureView],
        cutovers: Mapping[str, tuple[float, str]] | None = None,
        generation: int = 0,
        retired_predecessors: Mapping[str, int] | None = None,
    ) -> Self:
        """Plan the rings of views by label.

        Args:
            views: by `view@number`.
            cutovers: per label the time up to which history comes from files, and their digest.
            generation: grows with every rebuild.
            retired_predecessors: per label how many versions of the view had been retired before it.
        """
        by_feature: dict[tuple[str, Aggregation], Ring] = {}
        distinct: dict[str, Ring] = {}
        for label, view in views.items():
            for parts in sharing(part for feature in view.aggregations for part in feature.parts):
                after, history = (cutovers or {}).get(label, (float("-inf"), ""))
                ring = Ring.of(
                    view,
                    parts,
                    parts[-1].layout,
                    after_s=after,
                    history=history,
                    generation=generation,
                    retired_predecessors=(retired_predecessors or {}).get(label, 0),
                )
                ring = distinct.setdefault(f"{ring.view}/{ring.digest}", ring)
                by_feature.update({(label, part): ring for part in parts})
        by_source: dict[str, list[Ring]] = defaultdict(list)
        for ring in distinct.values():
            by_source[ring.source].append(ring)
        return cls(by_feature, by_source)

    def ring(self, label: str, part: Aggregation) -> Ring:
        """The ring that a part of a feature of `view@number` is read from."""
        return self.by_feature[label, part]

    def all(self) -> list[Ring]:
        """Every ring."""
        return [ring for rings in self.by_source.values() for ring in rings]

    def check_size(self, largest_item_bytes: int, partitions: int) -> None:
        """Refuse rings that a store can't hold.

        Raises:
            DefinitionError: one entity would take more than the store's largest item.
        """
        for ring in self.all():
            if (size := ring.largest_bytes(partitions)) > largest_item_bytes:
                raise DefinitionError(
                    f"view {ring.view!r}: an entity would take {size:,} bytes for one column, and the store "
                    f"holds at most {largest_item_bytes:,}: take a longer hop or less lateness"
                )

    def of_view(self, label: str) -> list[Ring]:
        """The rings that a version of a view is read from."""
        return list(dict.fromkeys(ring for (own, _), ring in self.by_feature.items() if own == label))


def entity_text(values: Sequence[Scalar]) -> str:
    """The text of an entity in keys, from its join keys in their order: 17 and "17" are the same entity."""
    if len(values) == 1:
        return str(values[0])
    return "|".join(str(value).replace("\\", "\\\\").replace("|", "\\|") for value in values)


def entity_texts(columns: Sequence[Sequence[Scalar]]) -> list[str]:
    """`entity_text` of many entities, from one column per join key."""
    if len(columns) == 1:
        return list(map(str, columns[0]))
    return [entity_text(values) for values in zip(*columns, strict=True)]


def _reads(view: FeatureView, columns: set[str], where: Condition | None) -> tuple[tuple[str, ColumnType], ...]:
    looked_at = (column for column, _ in (where.columns if where is not None else ()))
    return tuple((column, view.source.schema[column]) for column in sorted({*view.join_keys, *columns, *looked_at}))
