"""Lines on Thompson sampling: labels that come late, a better arm, and a base rate that drifts.

A day of 150 rows every quarter of an hour, a window of 8 hours, weights once an hour, a floor of 5 % per arm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulate.lines import SEED, Lines, within
from services.ab_router.domain.bandit import Posterior, best_probabilities, in_hash_steps, with_floor
from services.feedback_service.domain.confidence import confidence_sequence
from services.feedback_service.domain.sums.estimates import MIN_OBSERVATIONS, Estimate, overlap_weight
from services.feedback_service.domain.sums.mean import ClusteredSums, compare_clustered
from services.feedback_service.domain.sums.units import BUCKETS

Floats = NDArray[np.float64]
RUNS = 200
BATCHES, BATCH, BATCH_S, MOVE_BATCHES = 96, 150, 900.0, 4
WINDOW_S, FLOOR, LEAST_ROWS, DRAWS = 8 * 3_600.0, 0.05, 100, 1_000
QUICK_S, SLOW_S = 1_500.0, 4_500.0
"""How long labels take on average."""


@dataclass
class Day:
    """The rows of a day, arrays of one length: when, which epoch and arm, whether positive, and when a label comes.

    Args:
        random: draws them.
        rates: of positives by arm, at the start of the day.
        drift: how much the rates rise over the day.
    """

    random: np.random.Generator
    rates: Sequence[float]
    drift: float = 0.0
    times: Floats = field(default_factory=lambda: np.empty(0))
    epochs: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    arms: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    labelled_at: Floats = field(default_factory=lambda: np.empty(0))

    def add(self, batch: int, epoch: int, share: float) -> None:
        """A batch, of which arm 1 gets a share; a negative gets no label."""
        arms = (self.random.random(BATCH) < share).astype(np.int64)
        now = batch * BATCH_S
        positive = self.random.random(BATCH) < np.asarray(self.rates)[arms] + self.drift * batch / BATCHES
        delay = self.random.exponential(np.where(arms == 1, SLOW_S, QUICK_S))
        self.times = np.append(self.times, np.full(BATCH, now))
        self.epochs = np.append(self.epochs, np.full(BATCH, epoch))
        self.arms = np.append(self.arms, arms)
        self.labelled_at = np.append(self.labelled_at, np.where(positive, now + delay, np.inf))

    def counts(self, now: float, *, matured_only: bool) -> Floats:
        """Rows and positives by epoch and arm, shape (epochs, 2, 2)."""
        counted = self.times + WINDOW_S <= now if matured_only else self.times <= now
        seen = counted & (self.labelled_at <= np.minimum(self.times + WINDOW_S, now))
        cells, size = self.epochs * 2 + self.arms, 2 * (int(self.epochs.max(initial=0)) + 1)
        table = [np.bincount(cells[mask], minlength=size) for mask in (counted, seen)]
        return np.stack(table, axis=-1).reshape(-1, 2, 2).astype(np.float64)

    def effect(self) -> Estimate:
        """Arm 1 minus arm 0 after the day, as the results have it: within epochs, by the overlap of the arms."""
        buckets = self.random.integers(0, BUCKETS, len(self.times))
        positive = (self.labelled_at <= self.times + WINDOW_S).astype(np.float64)

        def sums(epoch: int, arm: int) -> ClusteredSums:
            rows = (self.epochs == epoch) & (self.arms == arm)
            return ClusteredSums(
                np.bincount(buckets[rows], minlength=BUCKETS).astype(np.float64),
                np.bincount(buckets[rows], positive[rows], minlength=BUCKETS).astype(np.float64),
            )

        compared = compare_clustered([(sums(epoch, 0), sums(epoch, 1)) for epoch in range(int(self.epochs.max()) + 1)])
        if compared is None:
            raise ValueError("no epoch of the day has enough rows")
        return compared.effect


def weight_of(counts: Floats, seed: str) -> float | None:
    """The share of arm 1 by the product's own rule; None while there are too few rows."""
    rows, positives = counts.sum(axis=0).T
    if rows.min() < LEAST_ROWS:
        return None
    known = counts[counts[:, :, 0].min(axis=1) >= MIN_OBSERVATIONS]
    if not len(known):
        return None
    weights = np.array([overlap_weight(*epoch[:, 0]) for epoch in known])
    means = known[:, :, 1] / known[:, :, 0]
    effect = float(np.average(means[:, 1] - means[:, 0], weights=weights))
    shares = (positives + 1.0) / (rows + 2.0)
    errors = np.sqrt(shares * (1.0 - shares) / rows)
    posteriors = [Posterior(0.0, float(errors[0])), Posterior(effect, float(errors[1]))]
    return in_hash_steps(with_floor(best_probabilities(posteriors, seed=seed, draws=DRAWS), FLOOR), 1.0)[1]


def day_of(
    random: np.random.Generator, rates: Sequence[float], *, drift: float = 0.0, matured_only: bool = True
) -> Day:
    """A day under the bandit."""
    day, share, epoch = Day(random, rates, drift), 0.5, 0
    for batch in range(BATCHES):
        if batch and batch % MOVE_BATCHES == 0:
            wanted = weight_of(day.counts(batch * BATCH_S, matured_only=matured_only), f"{epoch}")
            if wanted is not None and abs(wanted - share) >= 0.01:  # noqa: PLR2004 - as the product has it
                share, epoch = wanted, epoch + 1
        day.add(batch, epoch, share)
    return day


def slow_arm(runs: int, *, matured_only: bool) -> tuple[str, bool]:
    """Equal arms, of which one has labels that come three times slower."""
    random = np.random.default_rng(SEED)
    share = float(np.mean([day_of(random, (0.1, 0.1), matured_only=matured_only).arms.mean() for _ in range(runs)]))
    if matured_only:
        return f"traffic of the slow arm {share:.0%}; wanted 50 % +- 5", abs(share - 0.5) <= 0.05  # noqa: PLR2004
    return f"traffic of the slow arm {share:.0%}; expected to starve", share <= 0.35  # noqa: PLR2004


def honest(runs: int, rates: Sequence[float], drift: float) -> tuple[str, bool]:
    """A better arm, or equal ones while the base rate drifts: the effect within epochs is that of the world."""
    random, truth = np.random.default_rng(SEED), rates[1] - rates[0]
    last, missed, missed_once, pooled = [], 0, 0, 0
    for _ in range(runs):
        day = day_of(random, rates, drift=drift)
        last.append(float(day.arms[-len(day.arms) // 4 :].mean()))
        estimate = day.effect()
        look = confidence_sequence(estimate, alpha=0.05, tuning_n=5_000)
        missed += not look.low <= truth <= look.high
        missed_once += abs(estimate.value - truth) > 1.96 * estimate.standard_error
        pooled += _pooled_misses(day, truth)
    share, misses = float(np.mean(last)), missed / runs
    moved = share >= 0.8 if truth > 0.0 else abs(share - 0.5) <= 0.1  # noqa: PLR2004
    came = (
        f"traffic of arm 1 in the last quarter {share:.0%}, intervals that miss the effect {misses:.1%} (a single look "
        f"{missed_once / runs:.1%}, all epochs pooled {pooled / runs:.1%}); wanted <= 5 %"
    )
    return came, moved and within(misses, runs)


def _pooled_misses(day: Day, truth: float) -> bool:
    """Whether a single look at all rows, whatever their epoch, misses the effect."""
    positive = (day.labelled_at <= day.times + WINDOW_S).astype(np.float64)
    arms = [positive[day.arms == arm] for arm in (0, 1)]
    error = float(np.sqrt(sum(values.var() / len(values) for values in arms)))
    return abs(float(arms[1].mean() - arms[0].mean()) - truth) > 1.96 * error


LINES: Lines = {
    "bandit, equal arms, one with slow labels": (partial(slow_arm, matured_only=True), RUNS),
    "bandit, missing labels as negatives": (partial(slow_arm, matured_only=False), RUNS),
    "bandit, a better arm": (partial(honest, rates=(0.1, 0.15), drift=0.0), RUNS),
    "bandit, a better arm while the base rate drifts": (partial(honest, rates=(0.05, 0.1), drift=0.3), RUNS),
    "bandit, equal arms while the base rate drifts": (partial(honest, rates=(0.05, 0.05), drift=0.3), RUNS),
}
