"""Verdicts on champion and challenger, each a status and one plain sentence. A verdict is an event: it stays."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from contender.contracts.feedback_service import GUARDRAIL, Agreement, Counts, Verdict, VerdictEvent, VerdictStatus
from contender.contracts.values import Hypothesis
from services.feedback_service.domain import sentences
from services.feedback_service.domain.checks import CheckResults
from services.feedback_service.domain.confidence import ConfidenceSequence
from services.feedback_service.domain.hypotheses import both, claim
from services.feedback_service.domain.sentences import Contest, DayCount, Waiting
from services.feedback_service.domain.sequences import Intervals, RowLook

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Harm:
    """A guardrail that the challenger breaches: its metric in words, margin, and the effect on it.

    `of_all_rows` says that the metric is over all answered rows, so that no missing label can feign the harm.
    """

    metric: str
    margin: float
    effect: RowLook
    of_all_rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The evidence on one challenger at one look, and those before.

    Attributes:
        status: that of the experiment.
        effect: challenger minus champion over rows; None while there is no epoch to compare in.
        days: the same over whole days, as of the last whole cycle.
        day_count: the whole days.
        checks: whether the two may be compared.
        bounds: the worst case over missing labels, where they do not arrive alike.
        harm: the guardrail that is breached.
        agreement: of the scores of a row, where there are two.
        undecidable: why no verdict is possible: a shadow may show agreement alone.
        waiting: the rows that have not matured.
        reports: what became of the reports on both variants.
    """

    status: str = "running"
    hypothesis: Hypothesis = "superiority"
    effect: RowLook | None = None
    days: Intervals | None = None
    day_count: DayCount = field(default_factory=DayCount)
    checks: CheckResults = field(default_factory=CheckResults)
    bounds: Bounds | None = None
    harm: Harm | None = None
    agreement: Agreement | None = None
    undecidable: str = ""
    waiting: Waiting | None = None
    reports: Counts = field(default_factory=Counts)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status == "stopped" and self.waiting is None


def judge(contest: Contest, evidence: Evidence) -> Verdict:
    """The verdict on `contest` at this look; the same evidence always gives the same verdict.

    Its sentence ends with how many outcomes were refused, which may be what it lacks.
    """
    verdict = _judge(contest, evidence)
    if evidence.status == "paused" and verdict.status in _OPEN:
        status = "paused" if verdict.status == "collecting" else verdict.status
        verdict = Verdict(status, f"{verdict.sentence} {sentences.PAUSED}", verdict.challenger)
    return msgspec.structs.replace(verdict, sentence=verdict.sentence + sentences.refused(evidence.reports))


def _judge(contest: Contest, evidence: Evidence) -> Verdict:
    """The verdict but for what was refused.

    Reasons to withhold come first, the gravest first: a broken split or labels that arrive differently make the
    difference meaningless however clear it looks, and too few rows make its interval untrue. Harm needs no whole days,
    everything else does; it has rows enough of its own, and may be why labels do not arrive.
    """
    effect = evidence.effect
    if evidence.status == "draft":
        return Verdict("not started", "The experiment has not started yet.", contest.challenger)
    failures, harmed = standing_failures(evidence), harm_shown(evidence)
    if harmed is not None:
        return Verdict(GUARDRAIL, _harm_sentence(contest, harmed), contest.challenger)
    if evidence.undecidable:
        sentence = sentences.agreement(contest, evidence.agreement, evidence.undecidable)
        return Verdict("ended" if evidence.has_ended else "collecting", sentence, contest.challenger)
    if failures:
        sentence = f"No verdict: {sentences.failure(contest, evidence.checks, failures[0])}."
        return Verdict(failures[0], sentence, contest.challenger)
    if effect is None or not evidence.checks.has_enough_rows:
        return _too_few(contest, evidence)
    status, sentence = _shown(contest, evidence, effect)
    return Verdict(status, sentence, contest.challenger)


def _shown(contest: Contest, evidence: Evidence, effect: RowLook) -> tuple[VerdictStatus, str]:
    """What arms that can be compared show, with its sentence."""
    by_rows = _claim(contest, evidence, effect.intervals)
    status = by_rows if not evidence.day_count.wanted else None
    if evidence.days is not None and evidence.day_count.wanted:
        status = both(by_rows, _claim(contest, evidence, evidence.days))
    if status is not None and not evidence.checks.waits_for_tail:
        return status, _decided_sentence(contest, evidence, effect, status)
    if evidence.has_ended:
        return "ended", _ended_sentence(contest, evidence, effect)
    if by_rows is not None:
        return "leading", _leading_sentence(contest, evidence, effect, by_rows)
    return "collecting", _collecting_sentence(contest, evidence, effect)


def harm_shown(evidence: Evidence) -> Harm | None:
    """The guardrail that is breached, unless a failed check makes the difference in it meaningless."""
    harmed, failures = evidence.harm, standing_failures(evidence)
    if harmed is not None and harmed.of_all_rows:
        failures = [failure for failure in failures if failure in _ABOUT_ROWS]
    return None if failures else harmed


def standing_failures(evidence: Evidence) -> list[VerdictStatus]:
    """The failed checks; labels that arrive differently do not count where the worst case shows the same."""
    failures = evidence.checks.failures
    if "withheld: label arrival" in failures and _holds_in_the_worst_case(evidence):
        failures.remove("withheld: label arrival")
    return failures


def _holds_in_the_worst_case(evidence: Evidence) -> bool:
    if evidence.bounds is None or evidence.effect is None or evidence.hypothesis != "superiority":
        return False
    low, high = evidence.bounds
    interval = evidence.effect.intervals.two_sided
    return (low > 0.0 and interval.low > 0.0) or (high < 0.0 and interval.high < 0.0)


def _claim(contest: Contest, evidence: Evidence, intervals: Intervals) -> VerdictStatus | None:
    return claim(evidence.hypothesis, contest.margin, intervals, lower_is_better=contest.lower_is_better)


def _too_few(contest: Contest, evidence: Evidence) -> Verdict:
    lacks = sentences.too_few(contest, evidence.checks)
    if evidence.has_ended:
        return Verdict("ended", f"The experiment ended without a verdict: {lacks}.", contest.challenger)
    return Verdict(
        "withheld: too few", f"No verdict yet: {lacks}{sentences.waits(evidence.waiting)}", contest.challenger
    )


def _numbers(contest: Contest, evidence: Evidence, effect: RowLook) -> str:
    shown = sentences.difference(contest, effect.look, effect.intervals.two_sided)
    return f"{shown}; {sentences.rows(contest, evidence.checks)}"


def _harm_sentence(contest: Contest, harm: Harm) -> str:
    shown = sentences.difference(contest, harm.effect.look, harm.effect.intervals.two_sided)
    return (
        f"{_BREACHED}{contest.challenger} is worse than {contest.champion} in {harm.metric} by more than "
        f"{harm.margin:.3g}: {shown}, over {harm.effect.look.n:,} matured rows."
    )


def _decided_sentence(contest: Contest, evidence: Evidence, effect: RowLook, status: VerdictStatus) -> str:
    sentence = f"{sentences.claimed(contest, status)}: {_numbers(contest, evidence, effect)}"
    sentence += sentences.over_days(contest, evidence.day_count)
    if evidence.bounds is not None:
        low, high = evidence.bounds
        sentence += f" Labels do not arrive alike, but even in the worst case it is {low:+.3g} to {high:+.3g}."
    return sentence


def _leading_sentence(contest: Contest, evidence: Evidence, effect: RowLook, status: VerdictStatus) -> str:
    lead = {"challenger better": contest.challenger, "champion better": contest.champion}.get(status)
    claimed = f"{lead} leads in {contest.metric}" if lead else sentences.claimed(contest, status) + ", by rows alone"
    return (
        f"{claimed}, no verdict yet ({_missing(contest, evidence, status)}): "
        f"{_numbers(contest, evidence, effect)}{sentences.waits(evidence.waiting)}"
    )


def _missing(contest: Contest, evidence: Evidence, status: VerdictStatus) -> str:
    """What the rows' claim lacks to be a verdict."""
    missing, days = [], evidence.days
    if evidence.day_count.wanted and (days is None or both(status, _claim(contest, evidence, days)) is None):
        interval = None if days is None else days.two_sided
        missing.append(sentences.missing_days(evidence.day_count, interval))
    if evidence.checks.waits_for_tail:
        missing.append(sentences.missing_tail(contest, evidence.checks))
    return "; ".join(missing)


def _collecting_sentence(contest: Contest, evidence: Evidence, effect: RowLook) -> str:
    return (
        f"{_nothing(contest, evidence)} yet: {_numbers(contest, evidence, effect)}{sentences.waits(evidence.waiting)}"
    )


def _ended_sentence(contest: Contest, evidence: Evidence, effect: RowLook) -> str:
    shown = _nothing(contest, evidence).replace("No", "no", 1)
    claimed = _claim(contest, evidence, effect.intervals)
    if claimed is not None:
        shown = f"though {sentences.claimed(contest, claimed)} by rows alone ({_missing(contest, evidence, claimed)})"
    return f"The experiment ended without a verdict, {shown}: {_numbers(contest, evidence, effect)}."


def _nothing(contest: Contest, evidence: Evidence) -> str:
    if evidence.hypothesis == "superiority":
        return f"No difference in {contest.metric} shown"
    return f"Nothing about the margin of {contest.margin:.3g} in {contest.metric} shown"


def standing(event: VerdictEvent, findings: Sequence[VerdictEvent], status: str) -> Verdict:
    """A verdict that was reached, with what was found later; `status` is that of the experiment now."""
    sentence = event.sentence
    if status == "stopped" and event.is_harm:
        sentence = "Stopped: " + sentence.removeprefix(_BREACHED)
    return Verdict(event.status, sentence, event.challenger, event.at, [found.sentence for found in findings])


def contradiction(contest: Contest, effect: ConfidenceSequence, at: float) -> str:
    """The sentence on a verdict whose looks exclude each other."""
    return (
        f"Contradicted on {sentences.moment(at)}: later looks exclude what earlier ones showed, so the effect has "
        f"changed; {contest.challenger} minus {contest.champion} in {contest.metric} is now {effect.estimate:+.3g} "
        f"({effect.low:+.3g} to {effect.high:+.3g})."
    )


def question(contest: Contest, evidence: Evidence, status: VerdictStatus, at: float) -> str:
    """The sentence on a verdict after which a check failed, or a guardrail was breached."""
    if status == GUARDRAIL and evidence.harm is not None:
        reason = _harm_sentence(contest, evidence.harm).removeprefix(_BREACHED).removesuffix(".")
    else:
        reason = sentences.failure(contest, evidence.checks, status)
    return f"In question since {sentences.moment(at)}: {reason}."


_BREACHED = "Guardrail breached: "
_OPEN = ("collecting", "leading", "withheld: too few")
_ABOUT_ROWS = ("withheld: split", "withheld: unanswered rows")
"""The failed checks that are about rows, whatever is reported on them."""

SHOWN = {
    "challenger better": "is better",
    "champion better": "is worse",
    "no worse": "is no worse",
    "no difference": "does not differ",
    "stopped: guardrail": "breaches a guardrail",
    "leading": "is not decided yet",
    "collecting": "is not decided yet",
    "paused": "is not decided yet",
    "ended": "was not decided",
    "not started": "has not started",
}
"""A challenger's status in a few words."""

_RANK = (
    "challenger better",
    "withheld: split",
    "withheld: label arrival",
    "withheld: unanswered rows",
    "withheld: label tail",
    "withheld: estimators disagree",
    "withheld: dominant unit",
    "stopped: guardrail",
    "no worse",
    "no difference",
    "champion better",
    "leading",
    "collecting",
    "paused",
    "withheld: too few",
    "ended",
    "not started",
)


def summarise(champion: str, verdicts: Sequence[Verdict], improvements: Sequence[float]) -> Verdict:
    """One verdict for all challengers: the best of those shown better, else the gravest or most advanced.

    Args:
        champion: its name.
        verdicts: one for each challenger.
        improvements: by how much each is better in the deciding metric, as estimated when it was decided.
    """
    if not verdicts:
        return Verdict("collecting", f"{champion} has no challenger to be compared with yet.")
    order = sorted(zip(verdicts, improvements, strict=True), key=lambda pair: (_RANK.index(pair[0].status), -pair[1]))
    first = order[0][0]
    if len(order) == 1:
        return first
    overview = ", ".join(f"{verdict.challenger} {SHOWN.get(verdict.status, 'is withheld')}" for verdict, _ in order)
    sentence = f"{overview}. {first.sentence}"
    return Verdict(first.status, sentence, first.challenger, first.decided_at, first.findings)
