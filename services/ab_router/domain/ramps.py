"""The schedule of a canary: how large its arms are at a step, and when the next one comes."""

from math import isclose

from contender.contracts.experiments import Canary, ExperimentRevision
from contender.contracts.feedback_service import Results
from services.ab_router.domain.holds import Hold, Move, challengers_of, doubt, pause_between, unjudged_guardrail

_SAME_SHARE = 1e-6


def allocation_at(canary: Canary, step: int, challengers: int) -> tuple[float, tuple[float, ...]]:
    """The coverage and the weights of all variants at a step of the schedule, from 0.

    The champion's arm is as large as each challenger's, and weights stay as they are: so ranges only grow, and no unit
    moves from one variant to another.

    Returns:
        The share of the units that take part, and a weight for each of the challengers and the champion; they are
        equal.

    Raises:
        IndexError: the schedule has no such step.
    """
    if not 0 <= step < len(canary.steps):
        raise IndexError(f"step {step} is not in the schedule, which has steps 0 to {len(canary.steps) - 1}")
    arms = challengers + 1
    return min(1.0, arms * canary.steps[step]), (1.0 / arms,) * arms


def rest(canary: Canary, revision: ExperimentRevision, now: float) -> Hold | None:
    """Why a running canary stays at its step whatever the results say; None if they may advance it.

    Where its allocation is not that of its step, somebody has taken over.
    """
    step = revision.step or 0
    if not 0 <= step < len(canary.steps) or not _is_at(canary, revision, step):
        return Hold("off schedule", f"the allocation is not that of step {step + 1} of the schedule")
    if step == len(canary.steps) - 1:
        return Hold("last step", f"step {step + 1} is the last one")
    return pause_between(revision, canary.seconds_per_step, now)


def next_step(
    canary: Canary, revision: ExperimentRevision, results: Results, now: float, age_limit_s: float
) -> Move | Hold:
    """The next step of a running canary, or why it is held: it advances where nothing speaks against it.

    Guardrails must hold, and in each arm `rows_per_step` rows of this epoch must have matured that the deciding metric
    is over, `seconds_per_step` after the last change. Too few rows, old results and a withheld verdict mean a hold.

    Args:
        canary: the schedule.
        revision: the newest one of the experiment.
        results: as the feedback service gives them.
        now: in seconds since the Unix epoch.
        age_limit_s: results that are older are no reason for a move.
    """
    hold = rest(canary, revision, now) or doubt(revision, results, now, age_limit_s) or _worse(revision, results)
    if hold is not None:
        return hold
    rows = {variant.name: variant.epoch_matured for variant in results.variants}
    by_arm = {variant.name: rows.get(variant.name, 0) for variant in revision.variants}
    counted = ", ".join(f"{name} {count:,}" for name, count in by_arm.items())
    if min(by_arm.values()) < canary.rows_per_step:
        return Hold("too few rows", f"{canary.rows_per_step:,} matured rows are needed in each arm: {counted}")
    hold = unjudged_guardrail(revision, results)
    if hold is not None:
        return hold
    step, challengers = (revision.step or 0) + 1, challengers_of(revision)
    coverage, weights = allocation_at(canary, step, len(challengers))
    share = f"{canary.steps[step]:.3g} of the units in each arm"
    return Move(
        coverage,
        {variant.name: weight for variant, weight in zip(revision.variants, weights, strict=True)},
        step,
        f"step {step + 1} of {len(canary.steps)}, {share}: no guardrail is breached (matured rows: {counted})",
    )


def _is_at(canary: Canary, revision: ExperimentRevision, step: int) -> bool:
    coverage, weights = allocation_at(canary, step, len(challengers_of(revision)))
    pairs = [(revision.coverage, coverage), *zip([each.weight for each in revision.variants], weights, strict=True)]
    return all(isclose(actual, planned, abs_tol=_SAME_SHARE) for actual, planned in pairs)


def _worse(revision: ExperimentRevision, results: Results) -> Hold | None:
    """A challenger that was shown to be worse gets no more traffic."""
    statuses = {verdict.challenger: verdict.status for verdict in results.verdicts}
    for challenger in challengers_of(revision):
        if statuses.get(challenger) == "champion better":
            return Hold("verdict", f"{challenger} was shown to be worse than {revision.champion}")
    return None
