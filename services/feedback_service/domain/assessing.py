"""One challenger at one look: its effects, its checks and its verdict, with what is remembered of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from operator import itemgetter

import msgspec

from contender.contracts.feedback_service import Agreement, Counts, Effect, SegmentEffect, Verdict, VerdictStatus
from contender.contracts.feedback_service import Sequence as DaySequence
from contender.contracts.metrics import SERVED, Metric
from contender.contracts.metrics.metric import MEAN
from services.feedback_service.domain.bounds import worst_case
from services.feedback_service.domain.checks import CheckResults, check
from services.feedback_service.domain.comparing import Compared
from services.feedback_service.domain.confidence import finite
from services.feedback_service.domain.day_sequence import cycle_effects, cycles_wanted, day_sequence
from services.feedback_service.domain.design import ExperimentDesign
from services.feedback_service.domain.hypotheses import harm
from services.feedback_service.domain.memory import ChallengerMemory, RunningSequence
from services.feedback_service.domain.merging import Arm, Arms
from services.feedback_service.domain.multiplicity import holm
from services.feedback_service.domain.segments import harmed_segment, look_at_segments, segment_effects
from services.feedback_service.domain.sentences import Contest, DayCount, Waiting, among, report_word
from services.feedback_service.domain.sequences import Intervals, RowLook, Spending, both_sides, look_at_rows
from services.feedback_service.domain.spreads import are_enough, spreads_of
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.verdicts import Evidence, Harm, judge, standing_failures


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a look at any challenger has in common.

    Attributes:
        design: that of the experiment.
        arms: all of them.
        shared: the rows that a challenger and the champion have both scored, by epoch and challenger.
        agreement: how far those are scored alike, by challenger.
        whole: the whole days.
        split_p: the least p of the split.
        watermark: up to where rows have matured, but for their window.
        waiting: the rows that have not.
    """

    design: ExperimentDesign
    arms: Arms
    whole: range
    split_p: float
    watermark: float | None
    waiting: Waiting | None
    shared: Arms = field(default_factory=dict)
    agreement: Mapping[str, Agreement] = field(default_factory=dict)

    def compared(self, challenger: str) -> Compared:
        """What a challenger is compared by."""
        shared = [arm for (_, name), arm in sorted(self.shared.items(), key=itemgetter(0)) if name == challenger]
        shared = shared if self.design.allows_pairs else []
        return Compared(self.design.metric, self.pairs(challenger), shared, self.design.shadow)

    def pairs(self, challenger: str) -> list[tuple[Arm, Arm]]:
        """Champion and challenger by epoch."""
        epochs = sorted({epoch for epoch, _ in self.arms})
        champion = self.design.champion
        return [(self.arms.get((e, champion), Arm()), self.arms.get((e, challenger), Arm())) for e in epochs]

    @property
    def day_count(self) -> DayCount:
        """How many days are whole, and wanted."""
        cycle, whole = self.design.cycle_days, len(self.whole)
        wanted = cycles_wanted(cycle)
        return DayCount(whole, wanted, max(wanted, (whole // cycle + 1) * cycle) if cycle else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """One challenger at one look."""

    challenger: str
    contest: Contest
    evidence: Evidence
    verdict: Verdict
    failures: list[VerdictStatus]
    effects: dict[str, Effect]
    segments: list[SegmentEffect]
    memory: ChallengerMemory


@dataclass(slots=True)
class _Looks:
    """The looks at one challenger, metric by metric, while they are taken."""

    memory: ChallengerMemory
    rows: dict[str, RowLook] = field(default_factory=dict)
    days: dict[str, tuple[Intervals, int]] = field(default_factory=dict)
    harm: Harm | None = None


def assess(given: Circumstances, challenger: str, memory: ChallengerMemory, *, decided: bool) -> Assessment:
    """Look at one challenger; `decided` says that a verdict on it was reached before.

    Looks at too few rows are shown and not remembered: their intervals rest on the central limit theorem.
    """
    design, compared = given.design, given.compared(challenger)
    contest = _contest(design, challenger, is_paired=compared.is_paired(design.metric))
    checks, memory = check(
        compared,
        memory,
        split_p=given.split_p,
        counts_missing=design.counts_missing(design.metric),
        watermark=given.watermark,
        window_s=design.window_s,
    )
    looks = _Looks(memory)
    remembered = {metric: _has_enough_rows(design, metric, compared, checks) for metric in design.metrics}
    for metric in design.metrics:
        _look_at(looks, design, metric, compared, remembered=remembered[metric], decided=decided)
        _look_at_days(looks, given, metric, compared)
    for metric, margin in design.guardrails:
        _look_at_guardrail(looks, design, metric, margin, compared, remembered=remembered[metric])
    if checks.has_enough_rows:
        _look_at_harmed_segments(looks, design, compared.arms)
    deciding, days = looks.rows.get(design.metric.name), looks.days.get(design.metric.name)
    evidence = Evidence(
        status="running" if design.status == "draft" and given.arms else design.status,
        hypothesis=design.hypothesis,
        effect=deciding,
        days=days[0] if days else None,
        day_count=given.day_count,
        checks=checks,
        bounds=_bounds(design, compared, deciding, checks),
        harm=looks.harm,
        agreement=given.agreement.get(challenger),
        undecidable=design.undecidable,
        waiting=given.waiting,
        reports=sum((arm.live.counts for pair in compared.arms for arm in pair), Counts()),
    )
    verdict, failures = judge(contest, evidence), standing_failures(evidence)
    shown = not verdict.status.startswith("withheld: ") and not failures
    return Assessment(
        challenger=challenger,
        contest=contest,
        evidence=evidence,
        verdict=verdict,
        failures=failures,
        effects=_effects(design, looks, compared, shown=shown),
        segments=_look_at_segments(looks, design, compared.arms, shown=shown),
        memory=looks.memory,
    )


def _contest(design: ExperimentDesign, challenger: str, *, is_paired: bool) -> Contest:
    return Contest(
        champion=design.champion,
        challenger=challenger,
        metric=design.metric.words,
        lower_is_better=design.metric.lower_is_better,
        alpha=design.alpha_each,
        margin=design.margin,
        window_s=design.window_s,
        cycle_reason=design.cycle_reason if not design.cycle_days else "",
        report=report_word(design.metric),
        is_paired=is_paired,
    )


def _has_enough_rows(design: ExperimentDesign, metric: Metric, compared: Compared, checks: CheckResults) -> bool:
    """Whether looks at a metric rest on enough rows: pairs, or those of its own ledger, which may be others."""
    if compared.is_paired(metric) or metric.ledger == design.metric.ledger:
        return checks.has_enough(paired=compared.is_paired(metric))
    return are_enough(spreads_of(compared.arms, metric, counts_missing=design.counts_missing(metric)))


def _look_at(
    looks: _Looks,
    design: ExperimentDesign,
    metric: Metric,
    compared: Compared,
    *,
    remembered: bool,
    decided: bool,
) -> None:
    estimate = compared.effect(metric)
    if estimate is None:
        return
    decides = metric is design.metric
    spending = Spending(
        alpha=design.alpha_rows if decides else _alpha(design, metric),
        tuning_n=design.tuning_n,
        comparisons=design.comparisons,
        horizon_rows=design.horizon_rows if decides and remembered else None,
    )
    before = looks.memory if remembered else ChallengerMemory()
    name = compared.memory_name(metric)
    if design.corrected and not decides:
        name = f"{design.correction} {name}"
    look, memory = look_at_rows(
        estimate, spending, before, name, decided=decided and decides, look_at=compared.look_at(metric)
    )
    looks.rows[metric.name] = look
    if remembered:
        looks.memory = memory


def _look_at_days(looks: _Looks, given: Circumstances, metric: Metric, compared: Compared) -> None:
    """The sequence over days of a mean, and of the deciding metric whatever it is."""
    design = given.design
    if not design.cycle_days or (metric.sums != MEAN and metric is not design.metric):
        return
    alpha = _alpha(design, metric)
    effects = cycle_effects(sums_of(metric), compared.days(metric), given.whole, design.cycle_days)
    two_sided, one_sided = (day_sequence(effects, each) for each in (alpha, both_sides(alpha)))
    if two_sided is not None and one_sided is not None:
        p = min(1.0, design.comparisons * two_sided[1].p)
        intervals = Intervals(msgspec.structs.replace(two_sided[1], p=p), one_sided[1])
        looks.days[metric.name] = intervals, two_sided[0].n


def _look_at_guardrail(
    looks: _Looks,
    design: ExperimentDesign,
    metric: Metric,
    margin: float,
    compared: Compared,
    *,
    remembered: bool,
) -> None:
    """Harm stops an experiment on rows alone: it needs no whole week. The guardrails share alpha."""
    estimate = compared.effect(metric)
    if estimate is None or not remembered:
        return
    spending = Spending(alpha=design.alpha_guardrail, tuning_n=design.tuning_n, comparisons=design.comparisons)
    name = f"guardrail {compared.memory_name(metric)}"
    look_at = compared.look_at(metric)
    look, looks.memory = look_at_rows(estimate, spending, looks.memory, name, decided=False, look_at=look_at)
    low, _ = harm(look.intervals.one_sided, lower_is_better=metric.lower_is_better)
    if low > margin and looks.harm is None:
        looks.harm = Harm(metric.words, margin, look, metric.ledger == SERVED)


def _look_at_harmed_segments(looks: _Looks, design: ExperimentDesign, pairs: Sequence[tuple[Arm, Arm]]) -> None:
    for guardrail in design.segment_guardrails:
        harmed = harmed_segment(pairs, guardrail, design.alpha_guardrail, design.tuning_n)
        if harmed is not None and looks.harm is None:
            interval = RunningSequence().after(harmed.look)
            words = among(guardrail[0].words, harmed.key, harmed.value)
            looks.harm = Harm(words, guardrail[1], RowLook(harmed.look, Intervals(interval, interval)))


def _look_at_segments(
    looks: _Looks, design: ExperimentDesign, pairs: Sequence[tuple[Arm, Arm]], *, shown: bool
) -> list[SegmentEffect]:
    """The effects by segment; none counts as found where the two can't be compared."""
    ledgers, effects = segment_effects(pairs, design.metric, design.segments)
    found, least_p = look_at_segments(ledgers, effects, design.alpha_each, design.tuning_n, looks.memory.segments)
    looks.memory = msgspec.structs.replace(looks.memory, segments=least_p)
    return found if shown else [msgspec.structs.replace(segment, found=False) for segment in found]


def _bounds(
    design: ExperimentDesign, compared: Compared, deciding: RowLook | None, checks: CheckResults
) -> tuple[float, float] | None:
    """The worst case over missing labels, where they do not arrive alike and the metric's values are bounded.

    It is about rows of either variant that count once.
    """
    if checks.by_pairs or design.labels_seen_if:
        return None
    values = design.metric.range_of(design.task.name, clip=design.log_loss_clip, error_limit=design.error_limit)
    if values is None or deciding is None or "withheld: label arrival" not in checks.failures:
        return None
    reach = deciding.look.high - deciding.look.estimate
    epochs = [(champion.matured, challenger.matured) for champion, challenger in compared.arms]
    return worst_case(epochs, design.metric, design.task, values, reach) if isfinite(reach) else None


def _alpha(design: ExperimentDesign, metric: Metric) -> float:
    """What the interval of a metric may use up: metrics that do not decide share it where they are corrected."""
    return design.alpha_each if metric is design.metric else design.alpha_each / max(1, design.corrected)


def _effects(design: ExperimentDesign, looks: _Looks, compared: Compared, *, shown: bool) -> dict[str, Effect]:
    """The effects as they are published; those that do not decide corrected for their number, where that is asked."""
    effects = {
        metric.name: _effect(design, metric, looks, compared, shown=shown)
        for metric in design.metrics
        if metric.name in looks.rows
    }
    others = {name: effect for name, effect in effects.items() if not effect.decides} if design.corrected else {}
    rows = holm({name: effect.p for name, effect in others.items()}, design.corrected)
    days = holm({name: effect.days.p for name, effect in others.items() if effect.days}, design.corrected)
    for name, effect in others.items():
        sequence = effect.days and msgspec.structs.replace(effect.days, p=days[name])
        better = None
        if shown and rows[name] < design.alpha and effect.estimate is not None:
            better = (effect.estimate < 0.0) == effect.lower_is_better
        effects[name] = msgspec.structs.replace(effect, p=rows[name], days=sequence, better=better, corrected=True)
    return effects


def _effect(design: ExperimentDesign, metric: Metric, looks: _Looks, compared: Compared, *, shown: bool) -> Effect:
    """An effect as it is published; where the looks contradict each other the interval is that of this look."""
    row = looks.rows[metric.name]
    interval = row.intervals.two_sided
    low, high = (row.look.low, row.look.high) if interval.is_empty else (interval.low, interval.high)
    lower = metric.lower_is_better
    better = (high < 0.0) == lower if shown and (low > 0.0 or high < 0.0) else None
    return Effect(
        finite(row.look.estimate),
        finite(low),
        finite(high),
        interval.p,
        row.look.n,
        better,
        lower,
        _days(looks.days, metric),
        metric is design.metric,
        "paired" if compared.is_paired(metric) else "randomised",
    )


def _days(days: Mapping[str, tuple[Intervals, int]], metric: Metric) -> DaySequence | None:
    if metric.name not in days:
        return None
    intervals, n = days[metric.name]
    interval = intervals.two_sided
    return DaySequence(finite(interval.low), finite(interval.high), interval.p, n)
