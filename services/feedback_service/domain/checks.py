"""Whether a challenger may be compared with the champion: the checks on its rows and labels, over all looks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from contender.contracts.feedback_service import Checks, VerdictStatus
from services.feedback_service.domain.comparing import Compared
from services.feedback_service.domain.memory import ChallengerMemory, least
from services.feedback_service.domain.merging import Tally
from services.feedback_service.domain.split import BLOCKING_P, label_arrival
from services.feedback_service.domain.spreads import Spread, are_enough, spread_of, spread_over, spreads_of
from services.feedback_service.domain.sums.mean import ClusteredSums

MIN_COVERAGE = 0.8
"""The share of labels that the window must take in where a missing one counts as negative."""

Pair = tuple[Tally, Tally]
"""Champion and challenger in one epoch."""


@dataclass(frozen=True, slots=True)
class Shares:
    """A share of each arm's rows."""

    champion: float
    challenger: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResults:
    """The checks on one challenger at a look. p-values are the least of all looks.

    Attributes:
        split_p: of the whole experiment.
        p: the others.
        labelled: the share of matured rows that have a report which the deciding metric is about.
        late: the share of those reports that came after the window.
        unanswered: the share of assigned rows that got no prediction.
        tail_at: the watermark at which both arms had enough labels to compare late ones by.
        is_tail_known: whether they have been waited for one more window.
        needs_tail: whether a verdict waits for that.
        spreads: of the rows that count, the champion's first.
        paired: of the rows that both have scored; None where there are none.
        by_pairs: whether the deciding metric is taken from those.
    """

    split_p: float = 1.0
    p: Checks = field(default_factory=Checks)
    labelled: Shares = Shares(0.0, 0.0)
    late: Shares = Shares(0.0, 0.0)
    unanswered: Shares = Shares(0.0, 0.0)
    tail_at: float | None = None
    is_tail_known: bool = False
    needs_tail: bool = False
    spreads: tuple[Spread, Spread] = (spread_of(np.zeros(1)), spread_of(np.zeros(1)))
    paired: Spread | None = None
    by_pairs: bool = False

    @property
    def counted(self) -> tuple[Spread, ...]:
        """The spreads of the rows that the deciding metric is taken from."""
        return (self.paired,) if self.by_pairs and self.paired is not None else self.spreads

    @property
    def is_covered(self) -> bool:
        """Whether the window takes in enough of the labels, as far as that is known and matters."""
        longest = 1.0 - max(self.late.champion, self.late.challenger)
        return not (self.needs_tail and self.tail_at is not None) or longest >= MIN_COVERAGE

    @property
    def waits_for_tail(self) -> bool:
        """Whether a verdict must wait until late labels can be compared."""
        return self.needs_tail and not self.is_tail_known

    @property
    def failures(self) -> list[VerdictStatus]:
        """The verdicts that these checks withhold, the gravest reason first."""
        failed = {
            "withheld: split": self.split_p < BLOCKING_P,
            "withheld: label arrival": _fails(self.p.arrival),
            "withheld: unanswered rows": _fails(self.p.unanswered),
            "withheld: label tail": _fails(self.p.tail) or not self.is_covered,
            "withheld: estimators disagree": _fails(self.p.estimators),
            "withheld: dominant unit": any(spread.is_dominated for spread in self.counted),
        }
        return [status for status, fails in failed.items() if fails]

    @property
    def has_enough_rows(self) -> bool:
        """Whether the deciding metric has rows and units enough for an interval, and no unit dominates."""
        return are_enough(self.counted)

    def has_enough(self, *, paired: bool) -> bool:
        """The same for a metric that is taken from pairs, or from both arms."""
        return are_enough((self.paired,) if paired and self.paired is not None else self.spreads)


def _fails(p: float | None) -> bool:
    return p is not None and p < BLOCKING_P


def check(
    compared: Compared,
    memory: ChallengerMemory,
    *,
    split_p: float,
    counts_missing: bool,
    watermark: float | None,
    window_s: float,
) -> tuple[CheckResults, ChallengerMemory]:
    """Check one challenger against the champion, and remember the least p of each check.

    Labels are the reports that the deciding `metric` is about. Where a missing one counts (`counts_missing`), as one
    that means negative does or nobody's complaint, a label is the outcome itself, and a better challenger may have more
    of them: label arrival has no meaning then. What came after the window has: the share of the labels that it cuts off
    must be alike. The labels of matured rows say it, from when enough of them are two windows old. A metric that is
    known with the answer waits for no labels. In a shadow experiment both variants are judged by the champion's rows
    and labels: there is nothing to be alike, but the window may cut off too many labels.
    """
    metric, arms = compared.deciding, compared.arms
    matured: list[Pair] = [(champion.matured, challenger.matured) for champion, challenger in arms]
    live: list[Pair] = [(champion.live, challenger.live) for champion, challenger in arms]
    if compared.shadow:
        matured = [(champion, champion) for champion, _ in matured]
    reported = matured if metric.feedback is not None else []
    arrivals = [(one.arrival(metric), two.arrival(metric)) for one, two in reported]
    tails = [(one.tail(metric), two.tail(metric)) for one, two in reported]
    tail = label_arrival(tails)
    spreads = spreads_of(arms, metric, counts_missing=counts_missing)
    paired = spread_over([arm.matured for arm in compared.shared], metric, counts_missing=counts_missing)
    is_tested = are_enough((*spreads, paired))
    alike = {
        "arrival": None if counts_missing else label_arrival(arrivals),
        "tail": tail,
        "unanswered": label_arrival([(champion.refusal, challenger.refusal) for champion, challenger in live]),
        "estimators": compared.estimators_p if is_tested else None,
    }
    looks: dict[str, float | None] = dict.fromkeys(alike) if compared.shadow else alike
    found = {name: least(memory.checks, name, p) for name, p in looks.items()}
    tail_at = memory.tail_at if tail is None or memory.tail_at is not None else watermark
    memory = msgspec.structs.replace(
        memory, checks={name: p for name, p in found.items() if p is not None}, tail_at=tail_at
    )
    results = CheckResults(
        split_p=split_p,
        p=Checks(**found),
        labelled=_shares(arrivals),
        late=_shares(tails),
        unanswered=_shares([(one.refusal, two.refusal) for one, two in live]),
        tail_at=tail_at,
        is_tail_known=tail_at is not None and watermark is not None and watermark >= tail_at + window_s,
        needs_tail=counts_missing,
        spreads=spreads,
        paired=paired if compared.shared or compared.shadow else None,
        by_pairs=compared.is_paired(compared.deciding),
    )
    return results, memory


def _shares(epochs: Sequence[tuple[ClusteredSums, ClusteredSums]]) -> Shares:
    arms = [sum((epoch[arm] for epoch in epochs), ClusteredSums()) for arm in (0, 1)]
    return Shares(*(sums.mean if sums.n else 0.0 for sums in arms))
