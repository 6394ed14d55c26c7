"""Answered rows as a frame: a block for every way in which rows of a micro-batch differ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contender.contracts.values import Scalar
from services.ab_router.rows import ScoredRow
from shared.events import PredictionBlock, PredictionFrame
from shared.topics import PREDICTIONS


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """The value of a record, and each answer's row in it. Its length is the value's, in bytes."""

    value: bytes
    rows: list[int]

    def __len__(self) -> int:
        return len(self.value)


def encoded(answers: Sequence[ScoredRow]) -> EncodedFrame:
    """The frame of some answers."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, answer in enumerate(answers):
        groups.setdefault(_kind(answer), []).append(index)
    order = [index for indices in groups.values() for index in indices]
    rows = [0] * len(answers)
    for row, index in enumerate(order):
        rows[index] = row
    frame = PredictionFrame([_block([answers[index] for index in group]) for group in groups.values()])
    return EncodedFrame(PREDICTIONS.encode(frame), rows)


def _kind(answer: ScoredRow) -> tuple[object, ...]:
    row, experiment = answer.row, answer.row.experiment
    # Columns and context keys belong to the kind, because every list of a block has one entry per row.
    return (
        row.model.name,
        answer.version.version,
        experiment and (experiment.name, experiment.revision),
        row.variant and row.variant.name,
        answer.served_variant,
        tuple(answer.inputs),
        tuple(answer.statuses),
        tuple(sorted(row.row.context)),
    )


def _block(answers: Sequence[ScoredRow]) -> PredictionBlock:
    first = answers[0]
    row, variant = first.row, first.row.variant
    experiment = row.experiment if variant else None
    return PredictionBlock(
        model=row.model.name,
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
        unit=[answer.row.row.unit for answer in answers],
        time=[answer.row.time for answer in answers],
        score=[answer.score for answer in answers],
        label=[answer.label for answer in answers],
        inputs=_columns(first.inputs, (answer.inputs for answer in answers)),
        statuses={name: [answer.statuses[name] for answer in answers] for name in first.statuses},
        context=_columns(row.row.context, (answer.row.row.context for answer in answers)),
        degraded=[answer.degraded for answer in answers],
        latency_ms=[answer.latency_ms for answer in answers],
    )


def _columns(names: Iterable[str], rows: Iterable[dict[str, Scalar]]) -> dict[str, list[Scalar]]:
    kept = list(rows)
    return {name: [row[name] for row in kept] for name in names}
