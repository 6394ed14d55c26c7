"""What an experiment's champion has on record, for plans of further ones."""

from collections.abc import Sequence
from math import isfinite, nan

import numpy as np

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.metrics.metric import MEAN, Metric
from services.feedback_service.domain.day_sequence import MIN_DAYS, cycle_effects, whole_days
from services.feedback_service.domain.design import design_of
from services.feedback_service.domain.merging import Arm, merged_arms, watermark_of
from services.feedback_service.domain.planning import Record
from services.feedback_service.domain.snapshots import PartitionSnapshot
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.traffic import day_at, maturing_s, rows_per_day


def record_of(revision: ExperimentRevision, snapshots: Sequence[PartitionSnapshot], metric: Metric) -> Record | None:
    """The champion's record in a metric; None without matured rows, or while they do not say how much it varies."""
    groups = [group for snapshot in snapshots for group in snapshot.groups if group.experiment == revision.name]
    design, arms, watermark = design_of(revision.name, revision, groups), merged_arms(groups), watermark_of(groups)
    champions = [arm for (_, variant), arm in sorted(arms.items()) if variant == design.champion]
    kept = [arm.matured.metrics[metric.name] for arm in champions if metric.name in arm.matured.metrics]
    if not kept or watermark is None:
        return None
    estimate = sum(kept[1:], kept[0]).estimate
    if not estimate.varies or not estimate.n:
        return None
    whole = whole_days(
        sorted({day for arm in arms.values() for day in arm.day_rows}),
        clock=design.clock,
        time_zone=design.time_zone,
        watermark=watermark,
        window_s=design.window_s,
        began_at=design.started_at,
        stopped_at=design.stopped_at,
    )
    reached = day_at(watermark - maturing_s(design.window_s), design.time_zone)
    began = design.started_at if design.clock == "wall" else None
    served = sum(arm.matured.counts.predictions for arm in champions)
    labelled = sum(arm.matured.counts.labelled for arm in champions)
    hidden, explored = _hidden(revision, labelled, estimate.n)
    spread, excess, days = _days(champions, _challengers(arms, design.champion), metric, whole)
    return Record(
        experiment=revision.name,
        n=estimate.n,
        row_variance=estimate.n * estimate.standard_error**2,
        rows_per_day=rows_per_day(
            [arm.day_rows for arm in arms.values()],
            whole,
            reached,
            None if began is None else day_at(began, design.time_zone),
        ),
        labelled_share=min(1.0, estimate.n / served) if served else 1.0,
        day_variance=excess,
        day_spread=spread,
        days=days,
        window_s=design.window_s,
        cycle_days=design.cycle_days,
        assumes_negative=design.assumes_negative,
        hidden_share=hidden,
        exploration_share=explored,
    )


def _hidden(revision: ExperimentRevision, labelled: int, weighted: int) -> tuple[float, float]:
    """The share of rows whose label was hidden, and the share of them that was seen all the same.

    Of n rows that labelled ones stand for, 1 - h + h e are labelled.
    """
    explored = revision.exploration_share
    if not revision.labels_seen_if or not 0.0 < explored < 1.0 or not weighted:
        return 0.0, 1.0
    return min(max((1.0 - labelled / weighted) / (1.0 - explored), 0.0), 1.0), explored


def _challengers(arms: dict[tuple[int, str], Arm], champion: str) -> list[tuple[Arm, Arm]]:
    """Champion and first challenger by epoch."""
    names = sorted({variant for _, variant in arms if variant != champion})
    if not names:
        return []
    epochs = sorted({epoch for epoch, _ in arms})
    return [(arms.get((epoch, champion), Arm()), arms.get((epoch, names[0]), Arm())) for epoch in epochs]


def _days(
    champions: Sequence[Arm], pairs: Sequence[tuple[Arm, Arm]], metric: Metric, whole: range
) -> tuple[float | None, float, int]:
    """The standard deviation of the champion's means of days, the variance of a day's effect beyond that of rows.

    The third is the number of whole days. An effect's variance is known from two arms alone: what both share on a day
    is no part of it. One model in both arms has none, so a plan from it says the least that days can cost.
    """
    totals = [arm.days_of(metric) for arm in champions]
    if metric.sums != MEAN or len(whole) < MIN_DAYS:
        return None, 0.0, len(whole)
    rows, values = (
        np.array([sum(arm.get(day, {}).get(key, 0.0) for arm in totals) for day in whole]) for key in (0, 1)
    )
    means = values[rows > 0.0] / rows[rows > 0.0]
    spread = float(means.std(ddof=1)) if len(means) >= MIN_DAYS else nan
    epochs = [(champion.days_of(metric), challenger.days_of(metric)) for champion, challenger in pairs]
    effects = cycle_effects(sums_of(metric), epochs, whole, len(whole)) if epochs else []
    comparison = sums_of(metric).compare(
        [
            (champion.matured.metrics[metric.name], challenger.matured.metrics[metric.name])
            for champion, challenger in pairs
            if metric.name in champion.matured.metrics and metric.name in challenger.matured.metrics
        ]
    )
    excess = 0.0
    if effects and comparison is not None:
        by_days, by_rows = effects[-1], comparison.effect
        share = sum(arm.get(day, 0) for pair in pairs for arm in (pair[0].day_rows, pair[1].day_rows) for day in whole)
        everything = sum(sum(arm.day_rows.values()) for pair in pairs for arm in pair)
        noise = by_rows.standard_error**2 * everything / max(share, 1)
        excess = max(0.0, by_days.n * (by_days.standard_error**2 - noise))
    return (spread if isfinite(spread) else None), excess, len(whole)
