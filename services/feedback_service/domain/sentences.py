"""The sentences of verdicts: plain words with the numbers behind them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, exp, isfinite, log

from contender.contracts.feedback_service import Agreement, Counts, Forecast, VerdictStatus
from contender.contracts.metrics import Metric
from contender.contracts.values import OUTCOME
from services.feedback_service.domain.checks import MIN_COVERAGE, CheckResults
from services.feedback_service.domain.confidence import ConfidenceSequence
from services.feedback_service.domain.memory import RunningSequence
from services.feedback_service.domain.split import BLOCKING_P, MIN_MATURED_ROWS
from services.feedback_service.domain.sums.estimates import MIN_OBSERVATIONS
from services.feedback_service.domain.sums.units import BUCKETS

_PROPOSED_COVERAGE = 0.95


PAUSED = "The experiment is paused: no further rows count until it is started again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What is compared: the names of the two variants, the metric in words, and which way it counts.

    `report` is the word for what the metric waits for, and `is_paired` says that both are compared on the same rows.
    """

    champion: str
    challenger: str
    metric: str
    lower_is_better: bool
    alpha: float = 0.05
    margin: float = 0.0
    window_s: float = 0.0
    cycle_reason: str = ""
    report: str = "label"
    is_paired: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows that have not matured, and when the last of them does, in seconds since the Unix epoch."""

    rows: int
    until: float


@dataclass(frozen=True, slots=True)
class DayCount:
    """Whole days, how many a verdict takes at least (0: none), and after how many the next look at them comes."""

    whole: int = 0
    wanted: int = 0
    next_look: int = 0


def report_word(metric: Metric) -> str:
    """The word for a report that a metric is about; what comes true is a row's label."""
    return "label" if metric.feedback in (None, OUTCOME) else metric.report_word or str(metric.feedback)


def difference(contest: Contest, look: ConfidenceSequence, interval: RunningSequence) -> str:
    """The difference and its interval, signed, to three digits."""
    words = f"{contest.challenger} minus {contest.champion} is {look.estimate:+.3g}"
    if not interval.is_bounded:
        return f"{words} (no interval yet: the rows do not vary)"
    level = f"{100.0 * (1.0 - contest.alpha):.4g} %"
    has_left = not interval.low <= look.estimate <= interval.high
    changed = ", which the difference has left since earlier looks" if has_left else ""
    return f"{words} ({level} interval {interval.low:+.3g} to {interval.high:+.3g}{changed})"


def rows(contest: Contest, checks: CheckResults) -> str:
    """The matured rows that count."""
    if contest.is_paired:
        return f"on the same rows: both have scored {_matured(checks.counted[0].rows)}"
    champion, challenger = checks.spreads
    return f"{contest.champion} has {_matured(champion.rows)} and {contest.challenger} has {challenger.rows:,}"


def _matured(count: int) -> str:
    return _rows(count, "matured row")


def _rows(count: int, words: str = "row") -> str:
    return f"{count:,} {words}" if count == 1 else f"{count:,} {words}s"


def over_days(contest: Contest, days: DayCount) -> str:
    """How long a verdict was looked for, or why days do not matter; the end of the sentence."""
    if days.wanted:
        return f", over {days.whole:,} whole days."
    return f". Days are left out of account: {contest.cycle_reason.rstrip('.')}." if contest.cycle_reason else "."


def refused(counts: Counts) -> str:
    """How many reports were refused, and why; nothing where none were."""
    if not counts.refused:
        return ""
    words = "1 outcome was" if counts.refused == 1 else f"{counts.refused:,} outcomes were"
    reasons = {
        "that the model can't mean, out of range, or too many of a row": counts.refused - counts.early - counts.hidden,
        "from before their prediction": counts.early,
        "of rows whose label does not count": counts.hidden,
    }
    shown = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items() if number)
    return f" {words} refused: {shown}."


def waits(waiting: Waiting | None) -> str:
    """The rows that are still to mature, and the end of the sentence."""
    if waiting is None:
        return "."
    words = "1 row waits for its" if waiting.rows == 1 else f"{waiting.rows:,} rows wait for their"
    return f"; {words} window to pass, until {moment(waiting.until)}."


def agreement(contest: Contest, found: Agreement | None, reason: str) -> str:
    """What a shadow shows that can't show who is better."""
    words = f"A shadow shows agreement only, since {reason}"
    if found is None or not found.scored:
        return f"{words}; {contest.challenger} and {contest.champion} have scored no row both yet."
    differs = f"their scores differ by {found.score_difference.mean or 0.0:.3g} on average"
    if found.equal_labels.mean is not None:
        differs = f"they give {percent(found.equal_labels.mean)} of the rows the same label, and {differs}"
    return f"{words}: {contest.challenger} and {contest.champion} have both scored {_rows(found.scored)}; {differs}."


def among(metric: str, segment: str, value: str | None) -> str:
    """A metric among the rows of a segment."""
    return f"{metric} among the rarer values of {segment}" if value is None else f"{metric} where {segment} is {value}"


def forecast(shown: Forecast) -> str:
    """When a verdict may come, as a sentence; nothing while that can't be said."""
    if not shown.reachable:
        return " A verdict is not in reach at this margin: the effect is too small."
    if shown.rows_left is None or (shown.rows_left == 0 and not shown.days_left):
        return ""
    if shown.days_left is None:
        return f" If the effect stays, about {float(f'{shown.rows_left:.2g}'):,.0f} more rows are left until a verdict."
    return f" If the effect stays, about {days(shown.days_left)} are left until a verdict at this pace."


def days(count: float) -> str:
    """A number of days; hours or minutes where it is less than two."""
    if count >= 2.0:  # noqa: PLR2004 - where days suffice
        return f"{ceil(count - 0.1):,} days"
    return duration(ceil(count * 24.0) * 3600.0) if count > 2.0 / 24.0 else "2 hours"


def claimed(contest: Contest, status: VerdictStatus) -> str:
    """What a verdict says, without its numbers."""
    champion, challenger, metric = contest.champion, contest.challenger, contest.metric
    margin = f"{contest.margin:.3g}"
    return {
        "challenger better": f"{challenger} is better than {champion} in {metric}",
        "champion better": f"{champion} is better than {challenger} in {metric}",
        "no worse": f"{challenger} is worse than {champion} in {metric} by less than {margin}, if at all",
        "no difference": f"{champion} and {challenger} differ in {metric} by less than {margin}, if at all",
    }[status]


def missing_days(days: DayCount, interval: RunningSequence | None) -> str:
    """What a verdict still takes of days."""
    if days.whole < days.wanted:
        return f"{days.whole:,} of {days.wanted:,} whole days"
    if interval is None or not interval.is_bounded:
        seen = f"over {days.whole:,} whole days"
    else:
        seen = f"over whole days the interval is {interval.low:+.3g} to {interval.high:+.3g}"
    return f"the days do not agree yet ({seen}; the next look comes after {days.next_look:,})"


def missing_tail(contest: Contest, checks: CheckResults) -> str:
    """What a verdict still takes of late labels."""
    window = duration(contest.window_s)
    if checks.tail_at is None:
        return f"late {contest.report}s can't be compared before each has {MIN_MATURED_ROWS} {contest.report}s"
    return (
        f"late {contest.report}s are waited for one more window of {window}, "
        f"until {moment(checks.tail_at + contest.window_s)}"
    )


def too_few(contest: Contest, checks: CheckResults) -> str:
    """What the rows of an arm lack."""
    needs = "it takes" if contest.is_paired else "each needs"
    if min(spread.rows for spread in checks.counted) < MIN_MATURED_ROWS:
        return f"{rows(contest, checks)}, and {needs} at least {MIN_MATURED_ROWS}"
    if min(spread.filled for spread in checks.counted) < MIN_OBSERVATIONS:
        return (
            f"{rows(contest, checks)}, but they come from too few units: {needs} units in at least "
            f"{MIN_OBSERVATIONS} of {BUCKETS} groups"
        )
    return f"{rows(contest, checks)}, but in no epoch are there enough of both for {contest.metric}"


def failure(contest: Contest, checks: CheckResults, status: VerdictStatus) -> str:
    """Why the two can't be compared."""
    return _FAILURES[status](contest, checks)


def _split(contest: Contest, checks: CheckResults) -> str:
    return (
        f"the traffic does not split between {contest.champion} and {contest.challenger} as configured "
        f"(p {p(checks.split_p)}), so the two did not get comparable users"
    )


def _arrival(contest: Contest, checks: CheckResults) -> str:
    return (
        f"{contest.report}s do not arrive alike for {contest.champion} and {contest.challenger} "
        f"(p {p(checks.p.arrival)}): "
        f"{percent(checks.labelled.champion)} and {percent(checks.labelled.challenger)} of the matured rows have one, "
        "so those rows of the two are not comparable"
    )


def _unanswered(contest: Contest, checks: CheckResults) -> str:
    return (
        f"{contest.champion} and {contest.challenger} do not leave rows unanswered alike (p {p(checks.p.unanswered)}): "
        f"{percent(checks.unanswered.champion)} and {percent(checks.unanswered.challenger)} of their rows got no "
        "prediction, so those that did are not comparable"
    )


def _tail(contest: Contest, checks: CheckResults) -> str:
    late = f"{percent(checks.late.champion)} and {percent(checks.late.challenger)}"
    if checks.p.tail is not None and checks.p.tail < BLOCKING_P:
        reason = (
            f"{contest.report}s do not come equally late for {contest.champion} and {contest.challenger} "
            f"(p {p(checks.p.tail)}): {late} of their {contest.report}s came after the window"
        )
    else:
        reason = (
            f"{late} of the {contest.report}s of {contest.champion} and {contest.challenger} came after the window of "
            f"{duration(contest.window_s)}, which must take in {percent(MIN_COVERAGE)}"
        )
    return f"{reason}; a window of about {roughly(_proposed_window_s(contest, checks))} would take in most of them"


def _proposed_window_s(contest: Contest, checks: CheckResults) -> float:
    """The window that would take in _PROPOSED_COVERAGE of the labels, if their delays are exponential."""
    late = min(max(checks.late.champion, checks.late.challenger, exp(-20.0)), 0.99)
    return contest.window_s * max(2.0, log(1.0 - _PROPOSED_COVERAGE) / log(late))


def _estimators(contest: Contest, checks: CheckResults) -> str:
    return (
        f"the difference between {contest.challenger} and {contest.champion} on the same rows is not that between the "
        f"rows which either was assigned (p {p(checks.p.estimators)}), so the outcome may depend on the answer, or "
        "scores in shadow are not those that would be answered"
    )


def _dominant(contest: Contest, checks: CheckResults) -> str:
    both = (f"{contest.champion} and {contest.challenger} together",)
    names = zip(both if contest.is_paired else (contest.champion, contest.challenger), checks.counted, strict=True)
    name, spread = min(names, key=lambda arm: arm[1].effective)
    return (
        f"few units bring too many of the rows of {name}: {percent(spread.largest_share)} are in one of {BUCKETS} "
        "groups of units, so they are not many independent observations"
    )


_FAILURES = {
    "withheld: split": _split,
    "withheld: label arrival": _arrival,
    "withheld: unanswered rows": _unanswered,
    "withheld: label tail": _tail,
    "withheld: estimators disagree": _estimators,
    "withheld: dominant unit": _dominant,
}


def moment(seconds: float) -> str:
    """A time in words, such as "3 March 2026, 10:00 UTC"."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # a replay may use any time, and a window be of any length
        return f"{seconds:g} s after 1970"
    return f"{at.day} {at:%B} {at.year}, {at:%H:%M} UTC"


def duration(seconds: float) -> str:
    """A length of time in its largest fitting unit, such as "90 minutes" or "7 days"."""
    for unit, length in (("day", 86_400.0), ("hour", 3600.0), ("minute", 60.0)):
        count = round(seconds / length)
        if count and abs(count * length - seconds) <= 0.05 * seconds:
            return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
    return f"{seconds:g} seconds"


def roughly(seconds: float) -> str:
    """A length of time, rounded up to its largest unit of which it has more than two."""
    for length in (86_400.0, 3600.0, 60.0):
        if seconds > 2.0 * length:
            return duration(ceil(seconds / length) * length)
    return duration(seconds)


def percent(share: float) -> str:
    """A share in percent, to three digits."""
    return f"{100.0 * share:.3g} %"


def p(value: float | None) -> str:
    """A p-value to two digits; more zeros tell a reader nothing."""
    if value is None or not isfinite(value):
        return "unknown"
    return f"{value:.2g}" if value >= 1e-6 else "below 0.000001"  # noqa: PLR2004 - where words begin
