"""What is remembered of an experiment from look to look: a verdict rests on all of them, and is never taken back."""

from collections.abc import Mapping
from math import inf, isfinite

import msgspec

from contender.contracts.feedback_service import DECIDED, VerdictEvent
from services.feedback_service.domain.confidence import ConfidenceSequence
from services.feedback_service.domain.sums.estimates import Estimate


class RunningSequence(msgspec.Struct, frozen=True, array_like=True):
    """What all looks at one effect leave: the intersection of their intervals, and the least p.

    Source: the sequence holds the truth at all looks at once, so the intersection does (Waudby-Smith et al., arXiv
    2103.06476). An empty intersection says that the effect has changed.
    """

    low: float = -inf
    high: float = inf
    p: float = 1.0

    @property
    def excludes_zero(self) -> bool:
        """Whether the intersection lies on one side of zero."""
        return self.low > 0.0 or self.high < 0.0

    @property
    def is_empty(self) -> bool:
        """Whether two looks contradict each other."""
        return self.low > self.high

    @property
    def is_bounded(self) -> bool:
        """Whether any look said how much the effect varies."""
        return isfinite(self.low) and isfinite(self.high)

    def after(self, look: ConfidenceSequence) -> "RunningSequence":
        """What this look leaves."""
        return RunningSequence(max(self.low, look.low), min(self.high, look.high), min(self.p, look.p))

    def after_or_anew(self, look: ConfidenceSequence) -> "RunningSequence":
        """What this look leaves; where it contradicts those before, it begins a new sequence.

        Each look holds the average effect up to then. Where the effect changes before anything is decided, as it does
        over a week, the averages of earlier days no longer matter.
        """
        left = self.after(look)
        return RunningSequence().after(look) if left.is_empty else left


class FixedLook(msgspec.Struct, frozen=True, array_like=True):
    """The one look at a planned end: the effect, its standard error, and the rows behind it."""

    value: float
    standard_error: float
    n: int

    @property
    def estimate(self) -> Estimate:
        """The look as an estimate."""
        return Estimate(self.value, self.standard_error, self.n)


class ChallengerMemory(msgspec.Struct, frozen=True):
    """The looks at one challenger.

    Attributes:
        sequences: by metric.
        one_sided: by metric, for hypotheses and guardrails with a margin.
        checks: the least p of each check, by its name.
        horizon: the look at the planned end, once there was one.
        tail_at: the watermark at which both arms had enough labels to compare late ones by; a window later they have
            been waited for long enough.
        segments: the least p of each segment's effect, by ledger; 1 where it is missing.
    """

    sequences: dict[str, RunningSequence] = {}
    one_sided: dict[str, RunningSequence] = {}
    checks: dict[str, float] = {}
    horizon: FixedLook | None = None
    tail_at: float | None = None
    segments: dict[str, float] = {}


class Memory(msgspec.Struct, frozen=True):
    """The looks at an experiment so far: by challenger, and the least p of the split; and what was found, in order."""

    challengers: dict[str, ChallengerMemory] = {}
    split_p: float = 1.0
    events: list[VerdictEvent] = []

    def of(self, challenger: str) -> ChallengerMemory:
        """The looks at one challenger; none at first."""
        return self.challengers.get(challenger, ChallengerMemory())

    def verdict_on(self, challenger: str) -> VerdictEvent | None:
        """The verdict that was reached on a challenger."""
        decided = (event for event in self.events if event.kind == DECIDED and event.challenger == challenger)
        return next(decided, None)

    def findings_on(self, challenger: str) -> list[VerdictEvent]:
        """What was found after the verdict on a challenger, in order."""
        return [event for event in self.events if event.kind != DECIDED and event.challenger == challenger]


def least(checks: Mapping[str, float], name: str, p: float | None) -> float | None:
    """The least p of a check over all looks; None while it was never tested."""
    tested = [value for value in (checks.get(name), p) if value is not None]
    return min(tested, default=None)
