"""Answered rows as a frame: a block for every way in which rows of a micro-batch differ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

from services.ab_router.scoring import Scored
from shared.events import PredictionBlock, PredictionFrame, Scalar
from shared.topics import PREDICTIONS


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """The value of a record, and each answer's row in it. Its length is the value's, in bytes."""

    value: bytes
    rows: list[int]

    def __len__(self) -> int:
        return len(self.value)


def encoded(answers: Sequence[Scored]) -> EncodedFrame:
    """The frame of some answers."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, one in enumerate(answers):
        groups.setdefault(_kind(one), []).append(index)
    order = [index for indices in groups.values() for index in indices]
    rows = [0] * len(answers)
    for row, index in enumerate(order):
        rows[index] = row
    now = perf_counter()
    frame = PredictionFrame([_block([answers[index] for index in group], now) for group in groups.values()])
    return EncodedFrame(PREDICTIONS.encode(frame), rows)


def _kind(one: Scored) -> tuple[object, ...]:
    plan, experiment = one.plan, one.plan.experiment
    # Columns and context keys belong to the kind, because every list of a block has one entry per row.
    return (
        plan.model.name,
        one.version.version,
        experiment and (experiment.name, experiment.revision),
        plan.variant and plan.variant.name,
        one.served_variant,
        tuple(one.inputs),
        tuple(one.statuses),
        tuple(sorted(plan.row.context)),
    )


def _block(answers: Sequence[Scored], now: float) -> PredictionBlock:
    first = answers[0]
    plan, variant = first.plan, first.plan.variant
    experiment = plan.experiment if variant else None
    return PredictionBlock(
        model=plan.model.name,
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
        unit=[one.plan.row.unit for one in answers],
        time=[one.plan.time for one in answers],
        score=[one.score for one in answers],
        inputs=_columns(first.inputs, (one.inputs for one in answers)),
        statuses={name: [one.statuses[name] for one in answers] for name in first.statuses},
        context=_columns(plan.row.context, (one.plan.row.context for one in answers)),
        degraded=[one.degraded for one in answers],
        latency_ms=[round((now - one.plan.arrived) * 1e3, 3) for one in answers],
    )


def _columns(names: Iterable[str], rows: Iterable[dict[str, Scalar]]) -> dict[str, list[Scalar]]:
    kept = list(rows)
    return {name: [row[name] for row in kept] for name in names}
