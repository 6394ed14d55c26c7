"""What a line of the simulation is: a world, what came out of it, and whether that is as wanted.

A module of lines has a dict `LINES`, which `benchmarks.simulate.__main__` adds to all others.
"""

from collections.abc import Callable
from math import sqrt

LineOf = Callable[[int], tuple[str, bool]]
"""From the number of runs to what came, in words, and whether it is as wanted."""

Lines = dict[str, tuple[LineOf, int]]
"""Lines by name, each with its number of runs."""

RUNS, LIMIT, SEED = 300, 0.05, 7


def within(share: float, runs: int, limit: float = LIMIT) -> bool:
    """Whether a share is at most the limit, give or take what chance adds."""
    return share <= limit + 1.65 * sqrt(limit * (1.0 - limit) / runs)
