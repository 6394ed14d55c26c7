"""What an experiment may claim: better, no worse by more than a margin, or no different by more than it."""

from contender.contracts.feedback_service import VerdictStatus
from contender.contracts.values import Hypothesis
from services.feedback_service.domain.memory import RunningSequence
from services.feedback_service.domain.sequences import Intervals


def harm(interval: RunningSequence, *, lower_is_better: bool) -> tuple[float, float]:
    """The interval of how much worse the challenger is than the champion; negative where it is better."""
    return (interval.low, interval.high) if lower_is_better else (-interval.high, -interval.low)


def claim(
    hypothesis: Hypothesis, margin: float, intervals: Intervals, *, lower_is_better: bool
) -> VerdictStatus | None:
    """What the intervals of challenger minus champion show; None while they show nothing.

    A claim about one side takes the one-sided interval. That the challenger is better is nested in its being no worse,
    so both may be claimed from the same interval without a correction (closed testing; Marcus, Peritz, Gabriel,
    Biometrika 1976). No difference takes both sides, each at the whole alpha (two one-sided tests; Schuirmann, 1987).
    """
    low, high = harm(intervals.one_sided, lower_is_better=lower_is_better)
    if hypothesis == "non-inferiority":
        if high < 0.0:
            return "challenger better"
        if high < margin:
            return "no worse"
        return "champion better" if low > margin else None
    if hypothesis == "no difference" and -margin < low <= high < margin:
        return "no difference"
    low, high = harm(intervals.two_sided, lower_is_better=lower_is_better)
    beyond = margin if hypothesis == "no difference" else 0.0
    if high < -beyond:
        return "challenger better"
    return "champion better" if low > beyond else None


def both(rows: VerdictStatus | None, days: VerdictStatus | None) -> VerdictStatus | None:
    """What rows and days show together: the weaker of two claims on the same side; None where they do not agree."""
    if rows == days:
        return rows
    return "no worse" if {rows, days} == {"challenger better", "no worse"} else None
