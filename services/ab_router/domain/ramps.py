"""The schedule of a canary: how large its arms are at a step."""

from contender.contracts.experiments import Canary


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
