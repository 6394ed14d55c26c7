"""Rows as they were answered, and in pairs: with what another variant answered in shadow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from contender.contracts.tasks import task_named
from services.feedback_service.domain.agreement import agreement_of
from services.feedback_service.domain.entries import (
    NAME_CHARACTERS,
    UNKNOWN_LABEL,
    BlockEntry,
    FrameEntry,
    class_numbers,
    storable,
)
from services.feedback_service.domain.keys import with_expiry, without_expiry
from services.feedback_service.domain.labelling import RowChanges, differences, label_rows, served_rows
from services.feedback_service.domain.reports import RowReports
from services.feedback_service.domain.sums.exact import ExactSums
from shared.events import ShadowBlock


class ShadowRows(msgspec.Struct, frozen=True, array_like=True):
    """What `variant` answered in shadow to rows of one block of a frame, from the record at `offset`.

    `first` is the number of the block's first row in the frame. `row` (uint32) has the numbers of rows in the block;
    `score` (float64) and `label` (int32) have one entry for each, as in a BlockEntry.
    """

    offset: int
    first: int
    champion: str
    variant: str
    version: str
    row: bytes
    score: bytes
    label: bytes = b""

    @property
    def rows(self) -> list[int]:
        """The numbers of the rows in the block."""
        rows: list[int] = np.frombuffer(self.row, dtype=np.uint32).tolist()
        return rows


@dataclass(frozen=True, slots=True)
class Served:
    """The rows of a block as they were answered, from the record at `offset`; `known` is as `label_rows` has it."""

    block: BlockEntry
    offset: int
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def label(self, rows: Sequence[tuple[int, RowReports]], *, metrics: bool = True) -> RowChanges:
        """As `label_rows`."""
        return label_rows(self.block, rows, self.known, metrics=metrics)

    def answered(self, rows: Sequence[int]) -> ExactSums:
        """As `served_rows`."""
        return served_rows(self.block, rows)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows of a block, with what another variant answered in `shadow`: one of the two is the champion."""

    block: BlockEntry
    shadow: ShadowRows

    @property
    def offset(self) -> int:
        """That of the record of the shadow."""
        return self.shadow.offset

    @property
    def is_served_by_champion(self) -> bool:
        """Whether the challenger scored in shadow."""
        return self.block.variant == self.shadow.champion

    @property
    def challenger(self) -> str:
        """The variant that is compared with the champion."""
        return self.shadow.variant if self.is_served_by_champion else self.block.variant

    @property
    def version(self) -> str:
        """The version of the challenger."""
        return self.shadow.version if self.is_served_by_champion else self.block.version

    def label(self, rows: Sequence[tuple[int, RowReports]]) -> RowChanges:
        """As `label_rows`; what rows add is the challenger's value minus the champion's."""
        other, sign = self._shadow_block(), 1 if self.is_served_by_champion else -1
        return label_rows(self.block, rows, additions=lambda block, labelled: differences(block, other, labelled, sign))

    def agreement(self, rows: Sequence[int]) -> ExactSums:
        """As `agreement_of`, of rows that both have scored."""
        return agreement_of(self.block, self._shadow_block(), rows)

    def _shadow_block(self) -> BlockEntry:
        """The served block as if the other variant had answered; rows that it did not score are not to be used."""
        scores = np.zeros_like(self.block.scores)
        scores[self.shadow.rows] = np.frombuffer(self.shadow.score).reshape(-1, *scores.shape[1:])
        labels = np.full(self.block.size if self.shadow.label else 0, UNKNOWN_LABEL, dtype=np.int32)
        if self.shadow.label:
            labels[self.shadow.rows] = np.frombuffer(self.shadow.label, dtype=np.int32)
        return msgspec.structs.replace(self.block, score=scores.tobytes(), label=labels.tobytes())


def pairs_of(frame: FrameEntry, shadows: Sequence[ShadowRows]) -> Iterator[Pairs]:
    """The pairs that the shadows of a frame make."""
    blocks = dict(frame.located())
    return (Pairs(blocks[shadow.first], shadow) for shadow in shadows)


def check_shadows(shadows: Sequence[ShadowBlock]) -> None:
    """Check what can be known of shadows without their frames.

    Raises:
        ValueError: a list has another length than the rows, or a name is too long.
    """
    for number, shadow in enumerate(shadows):
        for column, values in {"score": shadow.score, "label": shadow.label or shadow.row}.items():
            if len(values) != len(shadow):
                raise ValueError(f"shadows[{number}].{column} has {len(values)} entries for {len(shadow)} rows")
        if max(map(len, (shadow.champion, shadow.variant, shadow.version))) > NAME_CHARACTERS:
            raise ValueError(f"shadows[{number}] has a name of more than {NAME_CHARACTERS} characters")


def shadow_rows(
    frame: FrameEntry, shadow: ShadowBlock, offset: int, known: Sequence[ShadowRows]
) -> Iterator[ShadowRows]:
    """The rows of a shadow that fit the frame, block by block; a row that the variant has scored before is left out.

    Args:
        frame: the frame that the shadow names.
        shadow: one that `check_shadows` accepts.
        offset: that of its record.
        known: the frame's shadows of earlier records.
    """
    for first, block in frame.located():
        scored = {row for rows in known if (rows.first, rows.variant) == (first, shadow.variant) for row in rows.rows}
        places = {
            row - first: place
            for place, row in reversed(list(enumerate(shadow.row)))
            if 0 <= row - first < block.size and row - first not in scored
        }
        if places and _is_pair(block, shadow):
            yield from _fitting(block, shadow, offset, first, dict(sorted(places.items())))


def _is_pair(block: BlockEntry, shadow: ShadowBlock) -> bool:
    """Whether a block and a shadow are of the champion and a challenger; a fallback's rows are neither's.

    A pair is of the epoch of its block, in which the row's unit was assigned: the shadow's is that of its scoring.
    """
    is_own = block.experiment == shadow.experiment and not block.fallback
    return is_own and (block.variant == shadow.champion) != (shadow.variant == shadow.champion)


def _fitting(
    block: BlockEntry, shadow: ShadowBlock, offset: int, first: int, places: dict[int, int]
) -> Iterator[ShadowRows]:
    """The rows at these places of the shadow, by their number in the block; nothing where a score does not fit."""
    scores = [shadow.score[place] for place in places.values()]
    widths = {len(score) if isinstance(score, list) else 0 for score in scores}
    if widths != {block.width} or task_named(block.task).score_fault(scores, len(block.classes)):
        return
    labels = [storable(shadow.label[place]) for place in places.values()] if shadow.label else []
    classes = block.classes or list(range(block.width or 2))
    yield ShadowRows(
        offset=offset,
        first=first,
        champion=shadow.champion,
        variant=shadow.variant,
        version=shadow.version,
        row=np.array(list(places), dtype=np.uint32).tobytes(),
        score=np.array(scores, dtype=np.float64).tobytes(),
        label=class_numbers(labels, classes, block.task),
    )


def encode_shadows(shadows: Sequence[ShadowRows], expires_at: float) -> bytes:
    """The value of the table entry that has a frame's shadows."""
    return with_expiry(expires_at, msgspec.msgpack.encode(shadows))


def decode_shadows(value: bytes | None) -> list[ShadowRows]:
    """Read the value of such an entry; none where there is none."""
    return [] if value is None else _SHADOWS.decode(without_expiry(value))


_SHADOWS = msgspec.msgpack.Decoder(list[ShadowRows])
