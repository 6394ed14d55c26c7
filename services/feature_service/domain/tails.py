"""Tails: the latest events of a ring one by one, so that its newest tiles can be cut at any moment.

A row asks for what happened before its own moment. Events of that very moment, or of later ones, may have arrived by
then and lie in the same tile, and what is summed up can't be taken out again. So beside the ring of an entity lies its
tail, the events that arrived last, in two stretches of up to TAIL_EVENTS. A stretch begins with the stem: a copy of the
newest tile as it was when the stretch began. Stem and events together are the tile, and where all of the stem came
before a moment, those events that did make up the rest. Nothing is sorted, and nothing summed up again: when the newer
stretch is full it becomes the older one. Tails are read for rows whose tile has later events, and for no others.

A tail is one byte string: a float64 with the place at which the newer stretch begins, the older stretch (nothing at
first), the newer one; a stretch is a float64 with the length of the stem, the stem, and two float64 per event.
store/merge.lua writes it.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from contender.features.layouts import TAIL_EVENTS, Layout
from services.feature_service.domain.cells import Cell, Pair, cell_of, merged, unpack

_NUMBER = struct.Struct("<d")


class Cut(NamedTuple):
    """A part of a tile, None where nothing is left. It is exact where the stem has no event of the other part."""

    cell: Cell | None
    is_exact: bool


@dataclass(slots=True)
class Stretch:
    """Some of the events that arrived last, and before them a tile's bytes, empty where it held nothing yet."""

    stem: bytes = b""
    events: list[Pair] = field(default_factory=list)
    _cells: list[Cell | None] = field(default_factory=list)

    def cell(self, layout: Layout) -> Cell | None:
        """The stem as a cell, None where it holds nothing; read once, as many rows may ask for cuts of a tile."""
        if not self._cells:
            self._cells.append(unpack(layout, self.stem))
        return self._cells[0]

    def pack(self) -> bytes:
        """Its bytes."""
        numbers = [number for pair in self.events for number in pair]
        return _NUMBER.pack(len(self.stem)) + self.stem + struct.pack(f"<{len(numbers)}d", *numbers)

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """A stretch of its bytes."""
        begin = _NUMBER.size + int(_NUMBER.unpack_from(packed)[0])
        return cls(packed[_NUMBER.size : begin], list(struct.iter_unpack("<2d", packed[begin:])))


@dataclass(slots=True)
class Tail:
    """The latest events of one entity's ring.

    Args:
        layout: the form of its cells.
        hop_s: width of its tiles in seconds.
        stretches: one or two, the newer last; none where nothing is known.
    """

    layout: Layout
    hop_s: int
    stretches: list[Stretch] = field(default_factory=list)

    def begins(self, events: Sequence[Pair]) -> bool:
        """Whether a stretch begins with what arrives together."""
        return not self.stretches or len(self.stretches[-1].events) + len(events) > TAIL_EVENTS

    def newest_tile(self, tile: float) -> float:
        """The newest tile that the events of the newer stretch lie in, or the given one.

        Not that of its stem: one event far ahead would have all stems be of its tile, until time has got there.
        """
        return max([tile, *(pair[0] // self.hop_s for newer in self.stretches[-1:] for pair in newer.events)])

    def add(self, events: Sequence[Pair], stem: bytes) -> None:
        """Take in what arrived together.

        Args:
            events: what arrived, TAIL_EVENTS at most.
            stem: the newest tile as it was before, where a stretch begins; empty where it held nothing.
        """
        if self.begins(events):
            self.stretches = [*self.stretches[-1:], Stretch(stem)]
        self.stretches[-1].events.extend(events)

    def cut(self, tile: float, count: float, time: float) -> Cut | None:
        """What of a tile came before a time; None where the tail does not know all of the tile's events.

        Args:
            tile: number of the tile.
            count: of its events in the ring.
            time: where it is cut.
        """
        found = None
        for place in reversed(range(len(self.stretches))):
            stem = self.stretches[place].cell(self.layout)
            if stem is not None and stem[0] != tile:
                stem = None
            own = [pair for one in self.stretches[place:] for pair in one.events if pair[0] // self.hop_s == tile]
            if (0.0 if stem is None else stem[1]) + len(own) != count:
                continue
            before = [pair for pair in own if pair[0] < time]
            cells = [*([] if stem is None else [stem]), *([cell_of(self.layout, tile, before)] if before else [])]
            whole = merged(self.layout, *cells) if len(cells) > 1 else next(iter(cells), None)
            found = Cut(whole, is_exact=stem is None or stem[2] < time)
            if found.is_exact:
                break
        return found

    def pack(self) -> bytes:
        """The bytes of a tail, empty where nothing is known."""
        if not self.stretches:
            return b""
        *older, newer = (stretch.pack() for stretch in self.stretches)
        return _NUMBER.pack(_NUMBER.size + sum(map(len, older))) + b"".join(older) + newer

    @classmethod
    def unpack(cls, layout: Layout, hop_s: int, packed: bytes | None) -> Self:
        """A tail of its bytes; one that knows nothing where there are none."""
        if not packed:
            return cls(layout, hop_s)
        newer = int(_NUMBER.unpack_from(packed)[0])
        older = packed[_NUMBER.size : newer]
        stretches = [Stretch.unpack(part) for part in (older, packed[newer:]) if part]
        return cls(layout, hop_s, stretches)
