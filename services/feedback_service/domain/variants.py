"""What results show of each variant and epoch, and of rows that two variants have scored."""

from collections.abc import Sequence

from contender.contracts.feedback_service import Agreement, EpochCounts, Interval, ReliabilityBin, VariantResult
from contender.contracts.metrics import CALIBRATION_ERROR, OVERRIDE_RATE, SHOWN_RATE, Metric
from services.feedback_service.domain.agreement import EQUAL_LABELS, SCORE_DIFFERENCE, agreement_sums
from services.feedback_service.domain.confidence import confidence_sequence, finite
from services.feedback_service.domain.design import ExperimentDesign
from services.feedback_service.domain.merging import Arm, Arms, Tally
from services.feedback_service.domain.snapshots import GroupSnapshot, PartitionSnapshot
from services.feedback_service.domain.sums import MetricSums
from services.feedback_service.domain.sums.calibration import CalibrationError
from services.feedback_service.domain.sums.mean import ClusteredSums

_NOBODY = Arm()


def agreements(design: ExperimentDesign, arms: Arms, paired: Sequence[GroupSnapshot]) -> dict[str, Agreement]:
    """How far each challenger scores rows as the champion does, where there are rows that both have scored."""
    found = {}
    for challenger in sorted({group.variant for group in paired}):
        sums = agreement_sums(paired, challenger)
        distance = sums.get(SCORE_DIFFERENCE)
        found[challenger] = Agreement(
            answered=sum(pooled(arms, name).live.counts.predictions for name in (design.champion, challenger)),
            scored=0 if distance is None else distance.n,
            equal_labels=_interval(design, sums.get(EQUAL_LABELS)),
            score_difference=_interval(design, distance),
        )
    return found


def epoch_counts(design: ExperimentDesign, arms: Arms) -> list[EpochCounts]:
    """The rows of each variant by epoch."""
    counted = []
    for epoch in sorted({epoch for epoch, _ in arms}):
        of_epoch = {variant: arms.get((epoch, variant), _NOBODY) for variant in design.variants}
        live = {variant: arm.live.counts.predictions for variant, arm in of_epoch.items()}
        matured = {variant: arm.matured.counts.predictions for variant, arm in of_epoch.items()}
        counted.append(EpochCounts(epoch, live, matured))
    return counted


def excluded_rows(experiment: str, snapshots: Sequence[PartitionSnapshot]) -> dict[str, int]:
    """The rows of all partitions that got a variant and don't count, by reason; each group has those of its own."""
    rows: dict[str, int] = {}
    for snapshot in snapshots:
        excluded = next((group.excluded for group in snapshot.groups if group.experiment == experiment), {})
        rows |= {reason: rows.get(reason, 0) + number for reason, number in excluded.items()}
    return dict(sorted(rows.items()))


def pooled(arms: Arms, variant: str) -> Arm:
    """A variant's rows of all epochs."""
    by_epoch = [arm for (_, name), arm in sorted(arms.items(), key=lambda item: item[0]) if name == variant]
    live = sum((arm.live for arm in by_epoch), Tally())
    return Arm(live=live, matured=sum((arm.matured for arm in by_epoch), Tally()))


def variant_result(design: ExperimentDesign, name: str, arm: Arm, newest: Tally) -> VariantResult:
    """What is known of a variant.

    Args:
        design: of the experiment.
        name: the variant's.
        arm: its rows of all epochs.
        newest: its matured rows of the newest epoch.
    """
    counts, decisive = arm.live.counts, newest.metrics.get(design.metric.name)
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
        live=_live_intervals(design, arm.live),
        unanswered=counts.unanswered,
        shown=_total(arm.live, SHOWN_RATE),
        decided=int(arm.live.ledger(OVERRIDE_RATE.ledger).sum()),
        overridden=_total(arm.live, OVERRIDE_RATE),
        epoch_matured=0 if decisive is None else decisive.n,
        reliability=_reliability(arm.matured),
    )


def _total(tally: Tally, metric: Metric) -> int:
    """The rows for which a share counts 1."""
    sums = tally.metrics.get(metric.name)
    return round(float(sums.totals.sum())) if isinstance(sums, ClusteredSums) else 0


def _reliability(tally: Tally) -> list[ReliabilityBin]:
    sums = tally.metrics.get(CALIBRATION_ERROR.name)
    return sums.reliability() if isinstance(sums, CalibrationError) else []


def _intervals(design: ExperimentDesign, tally: Tally) -> dict[str, Interval]:
    return {metric.name: _interval(design, tally.metrics.get(metric.name)) for metric in design.metrics}


def _live_intervals(design: ExperimentDesign, tally: Tally) -> dict[str, Interval]:
    """Without metrics in which a missing report counts: before its window has passed, a row lacks one anyway."""
    known = {metric.name: tally.metrics.get(metric.name) for metric in design.metrics}
    waiting = {metric.name for metric in design.metrics if design.counts_missing(metric)}
    return {name: _interval(design, None if name in waiting else sums) for name, sums in known.items()}


def _interval(design: ExperimentDesign, sums: MetricSums | None) -> Interval:
    if sums is None or sums.n == 0:
        return Interval(None, None, None, 0)
    look = sums.own_look(design.alpha)
    look = look or confidence_sequence(sums.estimate, alpha=design.alpha, tuning_n=design.tuning_n)
    return Interval(finite(look.estimate), finite(look.low), finite(look.high), sums.n)
