"""How the results of an experiment follow from the snapshots of the partitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from contender.contracts.metrics import SCORE_HISTOGRAM, metric_named
from services.feedback_service.domain.arrival import clustered_label_arrival
from services.feedback_service.domain.confidence import ConfidenceSequence, confidence_sequence
from services.feedback_service.domain.merging import Arm, Tally, merged_arms, watermark_of
from services.feedback_service.domain.setup import Setup, setup_of
from services.feedback_service.domain.snapshots import GroupSnapshot, PartitionSnapshot
from services.feedback_service.domain.split import clustered_split_p
from services.feedback_service.domain.sums import Comparison, compare, compare_clustered
from services.feedback_service.domain.verdicts import Contest, Evidence, Waiting, judge

_RANK = {"withheld: split": 5, "withheld: label arrival": 4, "challenger better": 3, "champion better": 2}


@dataclass(frozen=True, slots=True)
class _Tests:
    """P-values of the tests that may withhold a verdict; those of label arrival by challenger."""

    split_p: float
    arrivals: Mapping[str, float | None]


def results_of(
    name: str, revision: ExperimentRevision | None, snapshots: Sequence[PartitionSnapshot], now: float
) -> Results | None:
    """The results of an experiment, or None when neither a revision nor a prediction tells of it.

    `now`, in seconds since the Unix epoch, matters once the experiment has stopped: then its last rows mature by it.
    """
    groups = [group for snapshot in snapshots for group in snapshot.groups if group.experiment == name]
    if revision is None and not groups:
        return None
    watermark = watermark_of(groups, _caught_up_at(snapshots), revision.stopped_at if revision else None, now)
    arms = merged_arms(groups, float("-inf") if watermark is None else watermark)
    setup = setup_of(name, revision, groups)
    epochs = sorted({epoch for epoch, _ in arms})
    comparisons = {
        challenger: {metric: _compare(setup, arms, epochs, challenger, metric) for metric in setup.metrics}
        for challenger in setup.challengers
    }
    split = _split(setup, arms, epochs)
    arrivals = {challenger: _arrival_p(setup, arms, epochs, challenger) for challenger in setup.challengers}
    totals = {variant: _pooled(arms, variant) for variant in setup.variants}
    tests = _Tests(split.p, arrivals)
    verdict = _verdict(setup, totals, comparisons, tests, _waiting(groups, watermark))
    tested = [p for p in arrivals.values() if p is not None]
    return Results(
        experiment=name,
        status=setup.status,
        model=setup.model,
        metric=setup.metric,
        champion=setup.champion,
        alpha=setup.alpha,
        missing=setup.missing,
        window_s=setup.window_s,
        watermark=watermark,
        variants=[_variant(setup, variant, totals[variant]) for variant in setup.variants],
        effects={
            challenger: {metric: _effect(metric, look) for metric, look in by_metric.items() if look is not None}
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


def _caught_up_at(snapshots: Sequence[PartitionSnapshot]) -> float | None:
    """When the topics of every partition had been read to their end; None where that is not known of one."""
    times = [snapshot.status.caught_up_at for snapshot in snapshots]
    known = [time for time in times if time is not None]
    return min(known) if known and len(known) == len(times) else None


def _waiting(groups: Sequence[GroupSnapshot], watermark: float | None) -> Waiting | None:
    """The rows whose window has not passed yet."""
    cohorts = [cohort for group in groups for cohort in group.cohorts if cohort.matures_at > (watermark or 0.0)]
    rows = sum(cohort.counts.predictions for cohort in cohorts)
    return Waiting(rows, max(cohort.matures_at for cohort in cohorts)) if rows else None


def _since(snapshots: Sequence[PartitionSnapshot], revision: ExperimentRevision | None) -> float | None:
    """From when the results hold, unless the experiment began later or nothing is missing."""
    missing = [snapshot.status.since for snapshot in snapshots if snapshot.status.since is not None]
    started_at = revision.started_at if revision else None
    since = max(missing, default=None)
    return None if since is None or (started_at is not None and started_at >= since) else since


def _compare(
    setup: Setup, arms: Mapping[tuple[int, str], Arm], epochs: Sequence[int], challenger: str, metric: str
) -> ConfidenceSequence | None:
    pairs = [_pair(setup, arms, epoch, challenger) for epoch in epochs]
    comparison: Comparison | None
    if metric_named(metric).sums == SCORE_HISTOGRAM:
        comparison = compare([(champion.scores.auc, other.scores.auc) for champion, other in pairs])
    else:
        comparison = compare_clustered(
            [(a.metrics[metric], b.metrics[metric]) for a, b in pairs if metric in a.metrics and metric in b.metrics]
        )
    if comparison is None:
        return None
    return confidence_sequence(comparison.effect, alpha=setup.alpha_each, tuning_n=setup.tuning_n)


def _pair(setup: Setup, arms: Mapping[tuple[int, str], Arm], epoch: int, challenger: str) -> tuple[Tally, Tally]:
    nobody = Arm()
    return arms.get((epoch, setup.champion), nobody).matured, arms.get((epoch, challenger), nobody).matured


def _split(setup: Setup, arms: Mapping[tuple[int, str], Arm], epochs: Sequence[int]) -> Split:
    nobody = Arm()
    counts = {
        variant: sum(arms.get((epoch, variant), nobody).live.counts.predictions for epoch in epochs)
        for variant in setup.variants
    }
    tables = []
    for epoch in epochs:
        found = [arms.get((epoch, variant), nobody) for variant in setup.variants]
        declared = epoch == setup.epoch and sum(setup.shares.values()) > 0.0
        shares = [setup.shares.get(v, 0.0) for v in setup.variants] if declared else [a.probability for a in found]
        if sum(shares) > 0.0:
            tables.append(([arm.live.rows for arm in found], shares))
    return Split(clustered_split_p(tables) if tables else 1.0, counts)


def _arrival_p(
    setup: Setup, arms: Mapping[tuple[int, str], Arm], epochs: Sequence[int], challenger: str
) -> float | None:
    if setup.missing == "negative":
        return None
    pairs = [_pair(setup, arms, epoch, challenger) for epoch in epochs]
    arrival = clustered_label_arrival([(champion.arrival, other.arrival) for champion, other in pairs])
    return None if arrival is None else arrival.p


def _verdict(
    setup: Setup,
    totals: Mapping[str, Arm],
    comparisons: Mapping[str, Mapping[str, ConfidenceSequence | None]],
    tests: _Tests,
    waiting: Waiting | None,
) -> Verdict:
    verdicts = [
        judge(
            Contest(setup.champion, challenger, setup.metric, _lower_is_better(setup.metric), setup.alpha_each),
            Evidence(
                comparisons[challenger].get(setup.metric),
                _judged_rows(setup.metric, totals[setup.champion].matured),
                _judged_rows(setup.metric, totals[challenger].matured),
                tests.split_p,
                tests.arrivals[challenger],
                waiting,
            ),
        )
        for challenger in setup.challengers
    ]
    nothing = Verdict("collecting", f"{setup.champion} has no challenger to be compared with yet.")
    return max(verdicts, key=lambda verdict: _RANK.get(verdict.status, 0), default=nothing)


def _judged_rows(metric: str, tally: Tally) -> int:
    if metric_named(metric).sums == SCORE_HISTOGRAM:
        return tally.scores.n
    return tally.metrics[metric].n if metric in tally.metrics else 0


def _pooled(arms: Mapping[tuple[int, str], Arm], variant: str) -> Arm:
    found = [arm for (_, name), arm in sorted(arms.items(), key=lambda item: item[0]) if name == variant]
    live = sum((arm.live for arm in found), Tally())
    return Arm(live=live, matured=sum((arm.matured for arm in found), Tally()))


def _variant(setup: Setup, name: str, arm: Arm) -> VariantResult:
    counts = arm.live.counts
    return VariantResult(
        name=name,
        version=setup.versions.get(name, ""),
        champion=name == setup.champion,
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
        metrics=_intervals(setup, arm.matured),
        live=_intervals(setup, arm.live),
    )


def _intervals(setup: Setup, tally: Tally) -> dict[str, Interval]:
    intervals: dict[str, Interval] = {}
    for metric in setup.metrics:
        n = _judged_rows(metric, tally)
        if n == 0:
            intervals[metric] = Interval(None, None, None, 0)
            continue
        estimate = tally.scores.auc if metric_named(metric).sums == SCORE_HISTOGRAM else tally.metrics[metric].estimate
        look = confidence_sequence(estimate, alpha=setup.alpha, tuning_n=setup.tuning_n)
        intervals[metric] = Interval(_finite(look.estimate), _finite(look.low), _finite(look.high), n)
    return intervals


def _effect(metric: str, look: ConfidenceSequence) -> Effect:
    lower = _lower_is_better(metric)
    better = (look.estimate < 0.0) == lower if look.excludes_zero else None
    return Effect(_finite(look.estimate), _finite(look.low), _finite(look.high), look.p, look.n, better, lower)


def _lower_is_better(metric: str) -> bool:
    return metric_named(metric).lower_is_better


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
