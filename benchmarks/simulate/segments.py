"""Segments and trends: what is found where nothing differs, and what is missed where something does."""

from functools import partial
from math import sqrt

import numpy as np

from benchmarks.simulate.lines import RUNS, Lines
from benchmarks.simulate.worlds import Floats
from services.feedback_service.domain.constancy import constancy
from services.feedback_service.domain.segments import compare_groups, find
from services.feedback_service.domain.sums.score_histogram import UNIT_GROUPS

ALPHA, TUNING_N, LOOKS, CYCLE, SEED = 0.05, 5_000, 100, 7, 7
_BASE = 0.8
"""How often both variants are right."""


def found_segments(random: np.random.Generator, *, segments: int, rows: int, harm: float = 0.0) -> Floats:
    """Which segments are found at any of LOOKS looks, each of as many rows; the first is harmed by so many points."""
    segment, arm = random.integers(0, segments, rows), random.integers(0, 2, rows)
    rate = _BASE - harm * ((segment == 0) & (arm == 1))
    hits = (random.random(rows) < rate).astype(np.float64)
    cell = (segment * 2 + arm) * UNIT_GROUPS + random.integers(0, UNIT_GROUPS, rows)
    shape = (segments, 1, 2, UNIT_GROUPS)
    counts, totals = np.zeros(shape), np.zeros(shape)
    least_p, found = np.ones(segments), np.zeros(segments)
    for part in np.array_split(np.arange(rows), LOOKS):
        counts += np.bincount(cell[part], minlength=counts.size).reshape(shape)
        totals += np.bincount(cell[part], hits[part], minlength=counts.size).reshape(shape)
        least_p = np.minimum(least_p, compare_groups(counts, totals).sequence(ALPHA, TUNING_N)[2])
        found = np.maximum(found, find(least_p, ALPHA))
    return found


def null_segments(runs: int) -> tuple[str, bool]:
    """Fifty segments that do not differ, of 800 rows each."""
    random = np.random.default_rng(SEED)
    share = float(np.mean([found_segments(random, segments=50, rows=40_000).any() for _ in range(runs)]))
    limit = ALPHA + 1.65 * sqrt(ALPHA * (1.0 - ALPHA) / runs)
    return f"false discovery rate {share:.1%}; wanted <= 5 %", share <= limit


def harmed_segment(runs: int) -> tuple[str, bool]:
    """One of ten segments is harmed by 16 points, among 20,000 rows."""
    random = np.random.default_rng(SEED)
    found = np.array([found_segments(random, segments=10, rows=20_000, harm=0.16) for _ in range(runs)])
    share, others = float(found[:, 0].mean()), float(found[:, 1:].any(axis=1).mean())
    return f"found in {share:.1%}, others in {others:.1%}; wanted >= 80 %", share >= 0.8  # noqa: PLR2004


def change_p(random: np.random.Generator, effects: Floats, per_day: int = 5_000) -> float:
    """The p-value of constancy over days with these effects."""
    rows = per_day // 2
    hits = [random.binomial(rows, rates) for rates in (np.full(len(effects), _BASE), _BASE + effects)]
    totals = [{day: {0: float(rows), 1: float(n)} for day, n in enumerate(arm.tolist())} for arm in hits]
    p = constancy([(totals[0], totals[1])], range(len(effects)), CYCLE, ALPHA).p
    return 1.0 if p is None else p


def decay(runs: int) -> tuple[str, bool]:
    """An effect of 4 points that fades to zero over four weeks, at 5,000 rows a day."""
    random = np.random.default_rng(SEED)
    share = float(np.mean([change_p(random, np.linspace(0.04, 0.0, 28)) < ALPHA for _ in range(runs)]))
    return f"flagged in {share:.1%}; wanted >= 80 %", share >= 0.8  # noqa: PLR2004


def constant(runs: int, *, weekdays: float = 0.0, spread: float = 0.0, days: int = 84) -> tuple[str, bool]:
    """A constant effect of 4 points, but for one of weekends and one of each day, over twelve weeks."""
    random = np.random.default_rng(SEED)
    hits = 0
    for _ in range(runs):
        weekend = (random.integers(7) + np.arange(days)) % 7 >= 5  # noqa: PLR2004 - Saturday
        effects = 0.04 - weekdays * weekend + random.normal(0.0, 1.0, days) * spread
        hits += change_p(random, effects) < ALPHA
    limit = ALPHA + 1.65 * sqrt(ALPHA * (1.0 - ALPHA) / runs)
    return f"flagged in {hits / runs:.1%}; wanted <= 5 %", hits / runs <= limit


LINES: Lines = {
    "50 segments alike": (null_segments, RUNS),
    "one of 10 segments harmed by 16 points": (harmed_segment, RUNS),
    "4 points fading over 4 weeks": (decay, RUNS),
    "4 points all along": (constant, RUNS),
    "4 points all along, but at weekends": (partial(constant, weekdays=0.1), RUNS),
    "4 points, and 2 of each day": (partial(constant, spread=0.02), RUNS),
}
