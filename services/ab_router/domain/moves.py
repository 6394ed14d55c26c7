"""What moves the traffic of an experiment: the schedule of its canary, or its bandit."""

from contender.contracts.experiments import ExperimentRevision
from contender.contracts.feedback_service import Results
from services.ab_router.domain.bandit import next_weights
from services.ab_router.domain.holds import Hold, Move, pause_between
from services.ab_router.domain.ramps import next_step, rest

__all__ = ["Hold", "Move", "next_move", "waits"]

_FIXED = Hold("no change", "the allocation follows neither a schedule nor results")


def waits(revision: ExperimentRevision, now: float) -> Hold | None:
    """Why a running experiment holds its allocation whatever the results say; None if they may move it."""
    if revision.canary is not None:
        return rest(revision.canary, revision, now)
    if revision.bandit is not None:
        return pause_between(revision, revision.bandit.seconds_per_step, now)
    return _FIXED


def next_move(revision: ExperimentRevision, results: Results, now: float, age_limit_s: float) -> Move | Hold:
    """Another allocation for a running experiment, or why it holds the present one; see `next_step`, `next_weights`."""
    if revision.canary is not None:
        return next_step(revision.canary, revision, results, now, age_limit_s)
    if revision.bandit is not None:
        return next_weights(revision.bandit, revision, results, now, age_limit_s)
    return _FIXED
