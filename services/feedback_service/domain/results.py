"""Computes the results of an experiment from the snapshots of the partitions."""

from collections.abc import Mapping, Sequence
from math import isfinite

from contender.contracts.ab_router import ExperimentRevision
from contender.contracts.feedback_service import (
    Arrival,
    Counts,
    Effect,
    Health,
    Interval,
    Results,
    Split,
    VariantResult,
    Verdict,
)
from contender.contracts.metrics import Metric
from services.feedback_service.domain.confidence import ConfidenceSequence, confidence_sequence
from services.feedback_service.domain.design import ExperimentDesign, design_of
from services.feedback_service.domain.merging import Arm, Tally, merged_arms, watermark_of
from services.feedback_service.domain.snapshots import GroupSnapshot, PartitionSnapshot
from services.feedback_service.domain.split import clustered_split_p, label_arrival
from services.feedback_service.domain.sums import MetricSums, sums_of
from services.feedback_service.domain.verdicts import Contest, Evidence, Waiting, judge

Arms = Mapping[tuple[int, str], Arm]
"""By epoch and variant."""

_NOBODY = Arm()
_RANK = {"withheld: split": 5, "withheld: label arrival": 4, "challenger better": 3, "champion better": 2}


def results_of(
    name: str,
    revision: ExperimentRevision | None,
    snapshots: Sequence[PartitionSnapshot],
    now: float,  # noqa: ARG001 - the time of the look, which a verdict will carry
) -> Results | None:
    """The results of an experiment, or None when there is neither a revision nor a prediction of it."""
    groups = [group for snapshot in snapshots for group in snapshot.groups if group.experiment == name]
    if revision is None and not groups:
        return None
    watermark = watermark_of(groups)
    arms = merged_arms(groups)
    design = design_of(name, revision, groups)
    epochs = sorted({epoch for epoch, _ in arms})
    comparisons = {
        challenger: {metric: _compare(design, arms, epochs, challenger, metric) for metric in design.metrics}
        for challenger in design.challengers
    }
    split = _split(design, arms, epochs)
    arrivals = {challenger: _arrival_p(design, arms, epochs, challenger) for challenger in design.challengers}
    totals = {variant: _pooled(arms, variant) for variant in design.variants}
    deciding = {challenger: by_metric[design.metric] for challenger, by_metric in comparisons.items()}
    verdict = _verdict(design, totals, deciding, split_p=split.p, arrivals=arrivals, waiting=_waiting(groups))
    tested = [p for p in arrivals.values() if p is not None]
    return Results(
        experiment=name,
        status=design.status,
        model=design.model,
        metric=design.metric.name,
        champion=design.champion,
        alpha=design.alpha,
        missing=design.missing,
        window_s=design.window_s,
        watermark=watermark,
        variants=[_variant(design, variant, totals[variant]) for variant in design.variants],
        effects={
            challenger: {metric.name: _effect(metric, look) for metric, look in by_metric.items() if look is not None}
            for challenger, by_metric in comparisons.items()
        },
        split=split,
        arrival=Arrival(min(tested) if tested else None),
        verdict=verdict,
        health=_health(snapshots, totals),
        totals=sum((snapshot.counts for snapshot in snapshots), Counts()),
        offsets=_offsets(snapshots),
        updated_at=max((snapshot.status.updated_at for snapshot in snapshots), default=None),
        since=_since(snapshots, revision),
    )


def _waiting(groups: Sequence[GroupSnapshot]) -> Waiting | None:
    """The rows whose window has not passed yet."""
    cohorts = [cohort for group in groups for cohort in group.cohorts if not cohort.is_matured]
    rows = sum(cohort.counts.predictions for cohort in cohorts)
    return Waiting(rows, max(cohort.matures_at for cohort in cohorts)) if rows else None


def _since(snapshots: Sequence[PartitionSnapshot], revision: ExperimentRevision | None) -> float | None:
    """The time since which the results hold; None if the experiment began later or nothing is missing."""
    missing = [snapshot.status.since for snapshot in snapshots if snapshot.status.since is not None]
    started_at = revision.started_at if revision else None
    since = max(missing, default=None)
    return None if since is None or (started_at is not None and started_at >= since) else since


def _compare(
    design: ExperimentDesign,
    arms: Arms,
    epochs: Sequence[int],
    challenger: str,
    metric: Metric,
) -> ConfidenceSequence | None:
    pairs: list[tuple[MetricSums, MetricSums]] = []
    for epoch in epochs:
        champion, other = (arm.metrics.get(metric.name) for arm in _pair(design, arms, epoch, challenger))
        if champion is not None and other is not None:
            pairs.append((champion, other))
    comparison = sums_of(metric).compare(pairs)
    if comparison is None:
        return None
    return confidence_sequence(comparison.effect, alpha=design.alpha_each, tuning_n=design.tuning_n)


def _pair(design: ExperimentDesign, arms: Arms, epoch: int, challenger: str) -> tuple[Tally, Tally]:
    return arms.get((epoch, design.champion), _NOBODY).matured, arms.get((epoch, challenger), _NOBODY).matured


def _split(design: ExperimentDesign, arms: Arms, epochs: Sequence[int]) -> Split:
    counts = {
        variant: sum(arms.get((epoch, variant), _NOBODY).live.counts.predictions for epoch in epochs)
        for variant in design.variants
    }
    tables = []
    for epoch in epochs:
        epoch_arms = [arms.get((epoch, variant), _NOBODY) for variant in design.variants]
        declared = epoch == design.epoch and sum(design.shares.values()) > 0.0
        shares = (
            [design.shares.get(v, 0.0) for v in design.variants]
            if declared
            else [arm.probability for arm in epoch_arms]
        )
        if sum(shares) > 0.0:
            tables.append(([arm.live.rows for arm in epoch_arms], shares))
    return Split(clustered_split_p(tables) if tables else 1.0, counts)


def _arrival_p(design: ExperimentDesign, arms: Arms, epochs: Sequence[int], challenger: str) -> float | None:
    if design.missing == "negative":
        return None
    pairs = [_pair(design, arms, epoch, challenger) for epoch in epochs]
    return label_arrival([(champion.arrival, other.arrival) for champion, other in pairs])


def _verdict(
    design: ExperimentDesign,
    totals: Mapping[str, Arm],
    comparisons: Mapping[str, ConfidenceSequence | None],
    *,
    split_p: float,
    arrivals: Mapping[str, float | None],
    waiting: Waiting | None,
) -> Verdict:
    metric = design.metric
    verdicts = [
        judge(
            Contest(design.champion, challenger, metric.words, metric.lower_is_better, design.alpha_each),
            Evidence(
                comparisons[challenger],
                _rows(metric, totals[design.champion].matured),
                _rows(metric, totals[challenger].matured),
                split_p,
                arrivals[challenger],
                waiting,
            ),
        )
        for challenger in design.challengers
    ]
    nothing = Verdict("collecting", f"{design.champion} has no challenger to be compared with yet.")
    return max(verdicts, key=lambda verdict: _RANK.get(verdict.status, 0), default=nothing)


def _rows(metric: Metric, tally: Tally) -> int:
    """The rows that count in a metric."""
    sums = tally.metrics.get(metric.name)
    return 0 if sums is None else sums.n


def _pooled(arms: Arms, variant: str) -> Arm:
    by_epoch = [arm for (_, name), arm in sorted(arms.items(), key=lambda item: item[0]) if name == variant]
    live = sum((arm.live for arm in by_epoch), Tally())
    return Arm(live=live, matured=sum((arm.matured for arm in by_epoch), Tally()))


def _variant(design: ExperimentDesign, name: str, arm: Arm) -> VariantResult:
    counts = arm.live.counts
    return VariantResult(
        name=name,
        version=design.versions.get(name, ""),
        champion=name == design.champion,
        n=counts.predictions,
        labelled=counts.labelled,
        matured=arm.matured.counts.predictions,
        matured_labelled=arm.matured.counts.labelled,
        corrections=counts.corrections,
        late=counts.late,
        refused=counts.refused,
        duplicates=counts.duplicates,
        fallbacks=counts.fallbacks,
        degraded=counts.degraded,
        metrics=_intervals(design, arm.matured),
        live=_intervals(design, arm.live),
    )


def _intervals(design: ExperimentDesign, tally: Tally) -> dict[str, Interval]:
    return {metric.name: _interval(design, tally.metrics.get(metric.name)) for metric in design.metrics}


def _interval(design: ExperimentDesign, sums: MetricSums | None) -> Interval:
    if sums is None or sums.n == 0:
        return Interval(None, None, None, 0)
    look = confidence_sequence(sums.estimate, alpha=design.alpha, tuning_n=design.tuning_n)
    return Interval(_finite(look.estimate), _finite(look.low), _finite(look.high), sums.n)


def _effect(metric: Metric, look: ConfidenceSequence) -> Effect:
    lower = metric.lower_is_better
    better = (look.estimate < 0.0) == lower if look.excludes_zero else None
    return Effect(_finite(look.estimate), _finite(look.low), _finite(look.high), look.p, look.n, better, lower)


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


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
