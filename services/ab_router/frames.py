"""Rows as a frame: scored rows that share model, version, variant and columns make one block.

Lost rows of an experiment are in blocks of their own, which hold no predictions.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from services.ab_router.domain.assignment import Assignment
from services.ab_router.rows import AssignedRow, LostRow, ScoredRow
from shared.events import PredictionBlock, PredictionFrame, UnansweredBlock
from shared.topics import PREDICTIONS

FrameRow = ScoredRow | LostRow
_RowT = TypeVar("_RowT")


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """The value of a record, and the number of each row's prediction in it; None for a lost row.

    Its length is the value's, in bytes.
    """

    value: bytes
    rows: list[int | None]

    def __len__(self) -> int:
        return len(self.value)


def encode_frame(rows: Sequence[FrameRow]) -> EncodedFrame:
    """The frame of some rows."""
    scored = [(index, row) for index, row in enumerate(rows) if isinstance(row, ScoredRow)]
    groups = _grouped(scored, lambda indexed: _block_key(indexed[1]))
    numbers: list[int | None] = [None] * len(rows)
    for number, (index, _) in enumerate(indexed for group in groups for indexed in group):
        numbers[index] = number
    lost = _grouped((row for row in rows if isinstance(row, LostRow)), _lost_key)
    frame = PredictionFrame(
        [_block([row for _, row in group]) for group in groups],
        [block for group in lost if (block := _unanswered_block(group))],
    )
    return EncodedFrame(PREDICTIONS.encode(frame), numbers)


def _grouped(rows: Iterable[_RowT], key: Callable[[_RowT], Hashable]) -> list[list[_RowT]]:
    groups: dict[Hashable, list[_RowT]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _block_key(row: ScoredRow) -> tuple[object, ...]:
    assigned, experiment = row.assigned, row.assigned.experiment
    # Columns and context keys belong to the key, because every list of a block has one entry per row.
    return (
        assigned.model.name,
        row.version.version,
        experiment and (experiment.name, experiment.revision),
        _assignment_key(assigned.assignment),
        row.served_variant,
        tuple(row.inputs),
        tuple(row.statuses),
        tuple(sorted(_context_keys(assigned))),
    )


def _assignment_key(assignment: Assignment) -> tuple[object, ...]:
    """What an assignment says of itself in a block: a unit's first epoch may differ from its neighbour's."""
    variant, exclusion = assignment.variant, assignment.reason if assignment.excluded else ""
    return variant and variant.name, assignment.epoch, assignment.probability, exclusion


def _context_keys(assigned: AssignedRow) -> dict[str, None]:
    """The keys of a row's context, with the segments of its experiment: a row that lacks one counts all the same."""
    segments = assigned.experiment.segments if assigned.experiment and assigned.counts else ()
    return dict.fromkeys([*assigned.request.context, *segments])


def _block(rows: Sequence[ScoredRow]) -> PredictionBlock:
    first = rows[0]
    requests = [row.assigned.request for row in rows]
    probabilities = [row.label_probability for row in rows]
    request_ids = [request.request_id for request in requests]
    block = PredictionBlock(
        model=first.assigned.model.name,
        version=first.version.version,
        task=first.version.task,
        classes=first.version.classes,
        unit=[request.unit for request in requests],
        time=[row.assigned.time for row in rows],
        score=[row.score for row in rows],
        label=[row.label for row in rows],
        inputs={name: [row.inputs[name] for row in rows] for name in first.inputs},
        statuses={name: [row.statuses[name] for row in rows] for name in first.statuses},
        context={name: [request.context.get(name) for request in requests] for name in _context_keys(first.assigned)},
        degraded=[row.degraded for row in rows],
        latency_ms=[row.latency_ms for row in rows],
        label_probability=[] if all(probability == 1 for probability in probabilities) else probabilities,
        request_id=request_ids if any(request_ids) else [],
    )
    return _with_assignment(block, first.assigned.assignment, first.served_variant)


def _with_assignment(block: PredictionBlock, assignment: Assignment, served_variant: str | None) -> PredictionBlock:
    """The block with its variant, and with all of its experiment that decides how its rows count.

    Rows that don't count name the experiment in another field, so that readers that know of none leave them out.
    """
    experiment, variant = assignment.experiment, assignment.variant
    if experiment is None or variant is None:
        return block
    assigned = msgspec.structs.replace(
        block,
        revision=experiment.revision,
        epoch=assignment.epoch,
        variant=variant.name,
        served_variant=served_variant,
    )
    if assignment.excluded:
        return msgspec.structs.replace(assigned, excluded_from=experiment.name, exclusion=assignment.reason)
    return msgspec.structs.replace(
        assigned,
        experiment=experiment.name,
        window_s=experiment.window_s,
        missing=experiment.missing,
        early_s=experiment.early_s,
        clock=experiment.clock,
        time_zone=experiment.time_zone,
        log_loss_clip=experiment.log_loss_clip,
        label_range=experiment.label_range,
        error_limit=experiment.error_limit,
        metric=experiment.metric,
        segments=experiment.segments,
        value=experiment.value,
        assignment_probability=_probability(assignment),
    )


def _probability(assignment: Assignment) -> float:
    """The probability of an assignment as frames have it: 1 where nothing was drawn."""
    return 1.0 if assignment.probability is None else assignment.probability


def _lost_key(row: LostRow) -> tuple[object, ...]:
    experiment = row.assigned.experiment
    return experiment and (experiment.name, experiment.revision), _assignment_key(row.assigned.assignment)


def _unanswered_block(rows: Sequence[LostRow]) -> UnansweredBlock | None:
    """The block of rows that share experiment and assignment; None where they count in no results."""
    first = rows[0].assigned
    experiment, variant = first.experiment, first.variant
    if experiment is None or variant is None or not first.counts:
        return None
    return UnansweredBlock(
        model=first.model.name,
        experiment=experiment.name,
        revision=experiment.revision,
        epoch=first.assignment.epoch,
        window_s=experiment.window_s,
        missing=experiment.missing,
        clock=experiment.clock,
        time_zone=experiment.time_zone,
        task=first.version.task,
        variant=variant.name,
        assignment_probability=_probability(first.assignment),
        unit=[row.assigned.request.unit for row in rows],
        time=[row.assigned.time for row in rows],
        reason=[row.reason for row in rows],
    )
