"""How a canary's schedule advances."""

from itertools import pairwise

import pytest

from contender.contracts.experiments import Canary
from services.ab_router.domain.hashing import ranges
from services.ab_router.domain.ramps import allocation_at


def test_each_arm_has_the_share_of_the_step():
    coverage, weights = allocation_at(Canary([0.01, 0.05, 0.25]), 1, challengers=2)
    assert [coverage * weight for weight in weights] == pytest.approx([0.05, 0.05, 0.05])


def test_arms_share_all_units_where_the_step_is_larger_than_their_part():
    assert allocation_at(Canary([0.5]), 0, challengers=3) == (1.0, (0.25, 0.25, 0.25, 0.25))


@pytest.mark.parametrize("challengers", [1, 2, 5])
def test_ranges_only_grow_from_step_to_step(challengers: int):
    canary = Canary([0.01, 0.05, 0.1, 0.5])
    steps = [allocation_at(canary, step, challengers) for step in range(4)]
    bounds = [ranges(challengers + 1, coverage, weights) for coverage, weights in steps]
    for before, after in pairwise(bounds):
        for (low, high), (wider_low, wider_high) in zip(before, after, strict=True):
            assert wider_low <= low < high <= wider_high


@pytest.mark.parametrize("step", [-1, 2])
def test_a_step_outside_the_schedule_is_an_error(step: int):
    with pytest.raises(IndexError, match="has steps 0 to 1"):
        allocation_at(Canary([0.1, 0.5]), step, challengers=1)
