"""Scored rows as a frame: rows that share model, version, variant and columns make one block."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.ab_router.rows import ScoredRow
from shared.events import PredictionBlock, PredictionFrame
from shared.topics import PREDICTIONS


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """The value of a record, and the number of each scored row in it. Its length is the value's, in bytes."""

    value: bytes
    rows: list[int]

    def __len__(self) -> int:
        return len(self.value)


def encode_frame(rows: Sequence[ScoredRow]) -> EncodedFrame:
    """The frame of some rows."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_block_key(row), []).append(index)
    order = [index for indices in groups.values() for index in indices]
    numbers = [0] * len(rows)
    for number, index in enumerate(order):
        numbers[index] = number
    frame = PredictionFrame([_block([rows[index] for index in group]) for group in groups.values()])
    return EncodedFrame(PREDICTIONS.encode(frame), numbers)


def _block_key(row: ScoredRow) -> tuple[object, ...]:
    assigned, experiment = row.assigned, row.assigned.experiment
    # Columns and context keys belong to the key, because every list of a block has one entry per row.
    return (
        assigned.model.name,
        row.version.version,
        experiment and (experiment.name, experiment.revision),
        assigned.variant and assigned.variant.name,
        row.served_variant,
        tuple(row.inputs),
        tuple(row.statuses),
        tuple(sorted(assigned.request.context)),
    )


def _block(rows: Sequence[ScoredRow]) -> PredictionBlock:
    first = rows[0]
    variant = first.assigned.variant
    experiment = first.assigned.experiment if variant else None
    requests = [row.assigned.request for row in rows]
    return PredictionBlock(
        model=first.assigned.model.name,
        version=first.version.version,
        task=first.version.task,
        classes=first.version.classes,
        experiment=experiment.name if experiment else None,
        revision=experiment.revision if experiment else 0,
        epoch=experiment.epoch if experiment else 0,
        window_s=experiment.window_s if experiment else 0.0,
        missing=experiment.missing if experiment else "excluded",
        variant=variant.name if variant else None,
        served_variant=first.served_variant,
        assignment_probability=variant.weight * experiment.coverage if variant and experiment else 1.0,
        unit=[request.unit for request in requests],
        time=[row.assigned.time for row in rows],
        score=[row.score for row in rows],
        label=[row.label for row in rows],
        inputs={name: [row.inputs[name] for row in rows] for name in first.inputs},
        statuses={name: [row.statuses[name] for row in rows] for name in first.statuses},
        context={name: [request.context[name] for request in requests] for name in requests[0].context},
        degraded=[row.degraded for row in rows],
        latency_ms=[row.latency_ms for row in rows],
    )
