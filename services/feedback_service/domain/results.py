"""Computes the results of an experiment from the snapshots of the partitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import (
    Arrival,
    Constancy,
    Counts,
    DayPoint,
    Days,
    Health,
    Results,
    Split,
    Verdict,
)
from contender.contracts.metrics.metric import MEAN
from services.feedback_service.domain.assessing import Assessment, Circumstances, assess
from services.feedback_service.domain.constancy import constancy, week_by_week
from services.feedback_service.domain.day_sequence import day_by_day, whole_days
from services.feedback_service.domain.design import ExperimentDesign, design_of
from services.feedback_service.domain.findings import verdict_with_events
from services.feedback_service.domain.forecasting import forecast_of, with_forecast
from services.feedback_service.domain.formulas import value_curves
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.merging import Arm, Arms, Tally, merged_arms, watermark_of
from services.feedback_service.domain.sentences import Waiting
from services.feedback_service.domain.snapshots import GroupSnapshot, PartitionSnapshot
from services.feedback_service.domain.split import clustered_split_p
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.metric_sums import DayTotals
from services.feedback_service.domain.variants import agreements, epoch_counts, excluded_rows, pooled, variant_result
from services.feedback_service.domain.verdicts import summarise

_NOBODY = Arm()
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Look:
    """One look at an experiment: its results, and what is remembered after it."""

    results: Results
    memory: Memory


def results_of(
    name: str,
    revision: ExperimentRevision | None,
    snapshots: Sequence[PartitionSnapshot],
    now: float,
    memory: Memory | None = None,
) -> Look | None:
    """Look at an experiment; None when there is neither a revision nor a prediction of it.

    `now`, in seconds since the Unix epoch, dates what this look finds. `memory` is that of the looks before. The same
    arguments always give the same look.
    """
    of_experiment = [group for snapshot in snapshots for group in snapshot.groups if group.experiment == name]
    groups, paired = ([group for group in of_experiment if group.paired is alike] for alike in (False, True))
    if revision is None and not groups:
        return None
    design, arms = design_of(name, revision, groups), merged_arms(groups)
    since = _since(snapshots, revision)
    split = _split(design, arms, sorted({epoch for epoch, _ in arms}))
    memory = memory or Memory()
    memory = msgspec.structs.replace(memory, split_p=min(memory.split_p, split.p))
    given = Circumstances(
        design=design,
        arms=arms,
        whole=_whole_days(design, groups, since),
        split_p=memory.split_p,
        watermark=watermark_of(groups),
        waiting=_waiting(groups),
        shared=merged_arms(paired),
        agreement=agreements(design, arms, paired),
    )
    assessments = [
        assess(given, challenger, memory.of(challenger), decided=memory.verdict_on(challenger) is not None)
        for challenger in design.challengers
    ]
    offsets, verdicts = _offsets(snapshots), []
    for assessment in assessments:
        verdict, memory = verdict_with_events(assessment, memory, design, now=now, offsets=offsets)
        verdicts.append(verdict)
    if arms:
        looks = {assessment.challenger: assessment.memory for assessment in assessments}
        memory = msgspec.structs.replace(memory, challengers={**memory.challengers, **looks})
    counted = _results(given, split.counts, snapshots, since)
    counted = msgspec.structs.replace(counted, value_curve=value_curves(groups))
    return Look(_with_verdicts(given, counted, assessments, verdicts, memory), memory)


def as_published(results: Results, snapshots: Sequence[PartitionSnapshot]) -> Results:
    """The results of an earlier look at the same groups, with what these partitions say of themselves."""
    return msgspec.structs.replace(
        results,
        watermark=watermark_of([group for snapshot in snapshots for group in snapshot.groups]),
        health=msgspec.structs.replace(
            results.health,
            unmatched=sum(snapshot.counts.unmatched for snapshot in snapshots),
            expired=sum(snapshot.counts.expired for snapshot in snapshots),
        ),
        totals=sum((snapshot.counts for snapshot in snapshots), Counts()),
        offsets=_offsets(snapshots),
        updated_at=max((snapshot.status.updated_at for snapshot in snapshots), default=None),
    )


def _results(
    given: Circumstances,
    counts: dict[str, int],
    snapshots: Sequence[PartitionSnapshot],
    since: float | None,
) -> Results:
    """The results but for the challengers."""
    design, days = given.design, given.day_count
    totals = {variant: pooled(given.arms, variant) for variant in design.variants}
    return Results(
        experiment=design.name,
        status=design.status,
        model=design.model,
        metric=design.metric.name,
        champion=design.champion,
        alpha=design.alpha,
        missing=design.missing,
        window_s=design.window_s,
        watermark=given.watermark,
        variants=[
            variant_result(design, variant, totals[variant], _newest(given, variant)) for variant in design.variants
        ],
        effects={},
        split=Split(given.split_p, counts),
        arrival=Arrival(None),
        verdict=summarise(design.champion, [], []),
        health=_health(snapshots, totals),
        totals=sum((snapshot.counts for snapshot in snapshots), Counts()),
        offsets=_offsets(snapshots),
        updated_at=max((snapshot.status.updated_at for snapshot in snapshots), default=None),
        since=since,
        epochs=epoch_counts(design, given.arms),
        agreement=dict(given.agreement),
        excluded=excluded_rows(design.name, snapshots),
        days=Days(days.whole, days.wanted, str(design.time_zone)),
        epoch=design.epoch,
    )


def _with_verdicts(
    given: Circumstances,
    results: Results,
    assessments: Sequence[Assessment],
    verdicts: Sequence[Verdict],
    memory: Memory,
) -> Results:
    """The results with what was found of each challenger."""
    checks = {assessment.challenger: assessment.evidence.checks.p for assessment in assessments}
    tested = [known.arrival for known in checks.values() if known.arrival is not None]
    improvements = [_improvement(results.metric, assessment, memory) for assessment in assessments]
    timeline = {assessment.challenger: _timeline(given, assessment.challenger) for assessment in assessments}
    pairs = list(zip(assessments, verdicts, strict=True))
    forecasts = {
        known.challenger: forecast_of(given, known, verdict, timeline[known.challenger]) for known, verdict in pairs
    }
    verdicts = [with_forecast(verdict, forecasts[known.challenger]) for known, verdict in pairs]
    return msgspec.structs.replace(
        results,
        effects={assessment.challenger: assessment.effects for assessment in assessments},
        arrival=Arrival(min(tested, default=None)),
        verdict=summarise(results.champion, verdicts, improvements),
        verdicts=verdicts,
        checks=checks,
        timeline=timeline,
        weeks={assessment.challenger: _weeks(given, assessment.challenger) for assessment in assessments},
        constancy={assessment.challenger: _constancy(given, assessment.challenger) for assessment in assessments},
        segments={assessment.challenger: assessment.segments for assessment in assessments},
        forecast={name: forecast for name, forecast in forecasts.items() if forecast is not None},
    )


def _timeline(given: Circumstances, challenger: str) -> list[DayPoint]:
    """The effect in the deciding metric day by day, where it is a mean: leaving days out in turn takes too long."""
    design = given.design
    if design.metric.sums != MEAN:
        return []
    epochs = _days_of(given, challenger)
    return day_by_day(sums_of(design.metric), epochs, given.whole, design.cycle_days, design.alpha_each)


def _weeks(given: Circumstances, challenger: str) -> list[DayPoint]:
    """The effect in the deciding metric week by week, where it is a mean."""
    design = given.design
    if design.metric.sums != MEAN:
        return []
    return week_by_week(_days_of(given, challenger), given.whole, design.cycle_days, design.alpha_each)


def _constancy(given: Circumstances, challenger: str) -> Constancy:
    """Whether that effect stays as it is, where the metric is a mean."""
    design = given.design
    if design.metric.sums != MEAN:
        return Constancy()
    epochs = _days_of(given, challenger)
    return constancy(epochs, given.whole, design.cycle_days, design.alpha_each, design.comparisons)


def _days_of(given: Circumstances, challenger: str) -> list[tuple[DayTotals, DayTotals]]:
    """The totals of the deciding metric by day, of champion and challenger by epoch."""
    return given.compared(challenger).days(given.design.metric)


def _improvement(metric: str, assessment: Assessment, memory: Memory) -> float:
    """By how much a challenger is better in the deciding metric, as estimated at its verdict, or now."""
    decided = memory.verdict_on(assessment.challenger)
    effect = decided.effect if decided else assessment.effects.get(metric)
    if effect is None or effect.estimate is None:
        return 0.0
    return -effect.estimate if effect.lower_is_better else effect.estimate


def _whole_days(design: ExperimentDesign, groups: Sequence[GroupSnapshot], since: float | None) -> range:
    known = [moment for moment in (design.started_at, since) if moment is not None]
    return whole_days(
        sorted({day.day for group in groups for day in group.days}),
        clock=design.clock,
        time_zone=design.time_zone,
        watermark=watermark_of(groups),
        window_s=design.window_s,
        began_at=max(known, default=None),
        stopped_at=design.stopped_at,
    )


def _waiting(groups: Sequence[GroupSnapshot]) -> Waiting | None:
    """The rows whose window has not passed yet, or whose labels have not been read."""
    cohorts = [cohort for group in groups for cohort in group.cohorts if not cohort.is_matured]
    rows = sum(cohort.counts.predictions for cohort in cohorts)
    return Waiting(rows, max(cohort.matures_at for cohort in cohorts)) if rows else None


def _since(snapshots: Sequence[PartitionSnapshot], revision: ExperimentRevision | None) -> float | None:
    """The time since which the results hold; None if the experiment began later or nothing is missing."""
    missing = [snapshot.status.since for snapshot in snapshots if snapshot.status.since is not None]
    started_at = revision.started_at if revision else None
    since = max(missing, default=None)
    return None if since is None or (started_at is not None and started_at >= since) else since


def _split(design: ExperimentDesign, arms: Arms, epochs: Sequence[int]) -> Split:
    """The split of the assigned rows, answered or not."""
    counts = {
        variant: sum(arms.get((epoch, variant), _NOBODY).live.counts.predictions for epoch in epochs)
        for variant in design.variants
    }
    tables = []
    for epoch in epochs:
        epoch_arms = [arms.get((epoch, variant), _NOBODY) for variant in design.variants]
        shares = _shares(design, epoch, epoch_arms)
        if sum(shares) > 0.0:
            tables.append(([arm.live.rows + arm.live.unanswered for arm in epoch_arms], shares))
    return Split(clustered_split_p(tables) if tables else 1.0, counts)


def _shares(design: ExperimentDesign, epoch: int, arms: Sequence[Arm]) -> list[float]:
    """The shares of an epoch's variants, as they are recorded with its rows: those of the hash's steps.

    For a variant that has no rows in the epoch of now, and for rows that record no chance, they are as declared.
    """
    recorded = [arm.probability if (arm.live.rows + arm.live.unanswered).any() else 0.0 for arm in arms]
    declared = [design.shares.get(variant, 0.0) if epoch == design.epoch else 0.0 for variant in design.variants]
    seen = sum(share for share, known in zip(declared, recorded, strict=True) if known)
    if sum(declared) and (not seen or sum(recorded) > 1.0 + _ROUNDING):
        return declared
    scale = sum(recorded) / seen if seen else 0.0
    return [known or scale * share for known, share in zip(recorded, declared, strict=True)]


def _newest(given: Circumstances, variant: str) -> Tally:
    """A variant's matured rows of the newest epoch."""
    epoch = given.design.epoch
    return _NOBODY.matured if epoch is None else given.arms.get((epoch, variant), _NOBODY).matured


def _health(snapshots: Sequence[PartitionSnapshot], totals: Mapping[str, Arm]) -> Health:
    counts = sum((arm.live.counts for arm in totals.values()), Counts())
    return Health(
        unmatched=sum(snapshot.counts.unmatched for snapshot in snapshots),
        refused=counts.refused,
        late=counts.late,
        duplicates=counts.duplicates,
        corrections=counts.corrections,
        degraded=counts.degraded,
        fallbacks=counts.fallbacks,
        expired=sum(snapshot.counts.expired for snapshot in snapshots),
    )


def _offsets(snapshots: Sequence[PartitionSnapshot]) -> dict[str, dict[str, int]]:
    offsets: dict[str, dict[str, int]] = {}
    for snapshot in snapshots:
        for topic, offset in snapshot.offsets.items():
            offsets.setdefault(topic, {})[str(snapshot.partition)] = offset
    return offsets
