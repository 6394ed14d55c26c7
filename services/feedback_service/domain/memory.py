"""What is remembered of an experiment from look to look: a verdict rests on all of them, and is never taken back."""

from math import inf

import msgspec

from contender.contracts.feedback_service import VerdictEvent
from services.feedback_service.domain.confidence import ConfidenceSequence


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

    def after(self, look: ConfidenceSequence) -> "RunningSequence":
        """What this look leaves."""
        return RunningSequence(max(self.low, look.low), min(self.high, look.high), min(self.p, look.p))


class ChallengerMemory(msgspec.Struct, frozen=True):
    """The looks at one challenger: sequences by metric, and the least p of each check by its name."""

    sequences: dict[str, RunningSequence] = {}
    checks: dict[str, float] = {}


class Memory(msgspec.Struct, frozen=True):
    """The looks at an experiment so far: by challenger, and the least p of the split; and what was found, in order."""

    challengers: dict[str, ChallengerMemory] = {}
    split_p: float = 1.0
    events: list[VerdictEvent] = []

    def verdict_on(self, challenger: str) -> VerdictEvent | None:
        """The verdict that was reached on a challenger."""
        decided = (event for event in self.events if event.kind == "decided" and event.challenger == challenger)
        return next(decided, None)
