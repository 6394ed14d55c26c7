"""Verdicts on champion and challenger, each a status and one plain sentence."""

from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from contender.contracts.feedback_service import Verdict
from services.feedback_service.domain.confidence import ConfidenceSequence
from services.feedback_service.domain.split import BLOCKING_P, MIN_MATURED_ROWS
from services.feedback_service.domain.sums.estimates import MIN_OBSERVATIONS


@dataclass(frozen=True, slots=True)
class Contest:
    """What is compared: the names of the two variants, the metric in words, and which way it counts."""

    champion: str
    challenger: str
    metric: str
    lower_is_better: bool
    alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows that have not matured, and when the last of them does, in seconds since the Unix epoch."""

    rows: int
    until: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence at one look.

    `champion_rows` and `challenger_rows` are the matured rows that count in the metric. `effect` is challenger minus
    champion, None while there is no epoch to compare in. `arrival_p` is None where label arrival is not tested: too few
    matured rows, or a missing label means negative.
    """

    effect: ConfidenceSequence | None
    champion_rows: int
    challenger_rows: int
    split_p: float = 1.0
    arrival_p: float | None = None
    waiting: Waiting | None = None


def judge(contest: Contest, evidence: Evidence) -> Verdict:
    """The verdict on `contest` at this look; the same evidence always gives the same verdict.

    Reasons to withhold come first, the gravest first: a broken split or labels that arrive differently make the
    difference meaningless however clear it looks, and too few rows make its interval untrue.
    """
    if evidence.split_p < BLOCKING_P:
        return Verdict("withheld: split", _split_sentence(contest, evidence))
    if evidence.arrival_p is not None and evidence.arrival_p < BLOCKING_P:
        return Verdict("withheld: label arrival", _arrival_sentence(contest, evidence.arrival_p))
    effect = evidence.effect
    if effect is None or min(evidence.champion_rows, evidence.challenger_rows) < MIN_MATURED_ROWS:
        return Verdict("withheld: too few", _too_few_sentence(contest, evidence))
    if not effect.excludes_zero:
        return Verdict("collecting", _collecting_sentence(contest, evidence, effect))
    challenger_wins = (effect.estimate < 0.0) == contest.lower_is_better
    return Verdict(
        "challenger better" if challenger_wins else "champion better",
        _better_sentence(contest, evidence, effect, challenger_wins=challenger_wins),
    )


def _split_sentence(contest: Contest, evidence: Evidence) -> str:
    return (
        f"No verdict: the traffic does not split between {contest.champion} and {contest.challenger} as configured "
        f"(p {_p(evidence.split_p)}), so the two did not get comparable users."
    )


def _arrival_sentence(contest: Contest, p: float) -> str:
    return (
        f"No verdict: labels do not arrive alike for {contest.champion} and {contest.challenger} (p {_p(p)}), "
        "so the labelled rows of the two are not comparable."
    )


def _too_few_sentence(contest: Contest, evidence: Evidence) -> str:
    if min(evidence.champion_rows, evidence.challenger_rows) < MIN_MATURED_ROWS:
        return f"No verdict yet: {_rows(contest, evidence)}, and each needs at least {MIN_MATURED_ROWS}" + _waits(
            evidence
        )
    return (
        f"No verdict yet: {_rows(contest, evidence)}, but they come from too few units, and each needs at least "
        f"{MIN_OBSERVATIONS} in one epoch" + _waits(evidence)
    )


def _collecting_sentence(contest: Contest, evidence: Evidence, effect: ConfidenceSequence) -> str:
    sentence = f"No difference in {contest.metric} shown yet: {_difference(contest, effect)}; "
    return sentence + _rows(contest, evidence) + _waits(evidence)


def _better_sentence(contest: Contest, evidence: Evidence, effect: ConfidenceSequence, *, challenger_wins: bool) -> str:
    winner, loser = contest.challenger, contest.champion
    if not challenger_wins:
        winner, loser = loser, winner
    return (
        f"{winner} is better than {loser} in {contest.metric}: {_difference(contest, effect)}; "
        f"{_rows(contest, evidence)}."
    )


def _difference(contest: Contest, effect: ConfidenceSequence) -> str:
    """The difference and its interval, signed, to three digits."""
    difference = f"{contest.challenger} minus {contest.champion} is {effect.estimate:+.3g}"
    if not isfinite(effect.low):
        return f"{difference} (no interval yet: the rows do not vary)"
    level = f"{100.0 * (1.0 - contest.alpha):.4g} %"
    return f"{difference} ({level} interval {effect.low:+.3g} to {effect.high:+.3g})"


def _rows(contest: Contest, evidence: Evidence) -> str:
    return (
        f"{contest.champion} has {evidence.champion_rows:,} matured rows and "
        f"{contest.challenger} has {evidence.challenger_rows:,}"
    )


def _waits(evidence: Evidence) -> str:
    """The rows that are still to mature, and the end of the sentence."""
    waiting = evidence.waiting
    if waiting is None:
        return "."
    rows = "1 row waits for its" if waiting.rows == 1 else f"{waiting.rows:,} rows wait for their"
    return f"; {rows} window to pass, until {_utc(waiting.until)}."


def _utc(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):  # a replay may use any time, and a window be of any length
        return f"{seconds:g}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-6 else "below 0.000001"  # noqa: PLR2004 - more zeros tell a reader nothing
