"""What the product's statistics say at many looks at a world."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

from benchmarks.simulate.worlds import Days, DelayedRows, Floats, Integers, Rows
from contender.contracts.metrics import LABELLED, Metric, metric_named, metrics_of
from contender.contracts.tasks import task_named
from services.feedback_service.domain.checks import MIN_COVERAGE
from services.feedback_service.domain.confidence import ConfidenceSequence, confidence_sequence
from services.feedback_service.domain.day_sequence import cycle_effects, day_sequence
from services.feedback_service.domain.memory import RunningSequence
from services.feedback_service.domain.split import BLOCKING_P, MIN_MATURED_ROWS, label_arrival
from services.feedback_service.domain.spreads import MIN_EFFECTIVE_BUCKETS
from services.feedback_service.domain.sums import sums_of
from services.feedback_service.domain.sums.estimates import Estimate
from services.feedback_service.domain.sums.mean import ClusteredSums
from services.feedback_service.domain.sums.metric_sums import DayTotals, LabelledRows, MetricSums
from services.feedback_service.domain.sums.score_histogram import BINS, FIRST_KEY, UNIT_GROUPS, ScoreHistogram
from services.feedback_service.domain.sums.units import BUCKETS, effective_buckets

ALPHA, TUNING_N, LOOKS, CYCLE = 0.05, 5_000, 100, 7
Mask = NDArray[np.bool_]


def deciding_metrics(task: str) -> list[Metric]:
    """The metrics of a task that may decide."""
    return [metric for metric in metrics_of(task_named(task), LABELLED) if metric.may_decide and not metric.needs]


def row_looks(rows: Rows, metric: Metric, looks: int = LOOKS) -> Iterator[tuple[int, ConfidenceSequence]]:
    """The number of rows, and the effect, at each look that a verdict could rest on."""
    ends = np.linspace(0, len(rows.arms), looks + 1).astype(int)
    for end, counts, arms in zip(ends[1:].tolist(), *_sums_at(rows, metric, ends), strict=True):
        if counts.sum(axis=1).min() < MIN_MATURED_ROWS or min(map(effective_buckets, counts)) < MIN_EFFECTIVE_BUCKETS:
            continue
        comparison = sums_of(metric).compare([arms])
        if comparison is not None:
            yield end, confidence_sequence(comparison.effect, alpha=ALPHA, tuning_n=TUNING_N)


def _sums_at(
    rows: Rows, metric: Metric, ends: NDArray[Any]
) -> tuple[Iterator[Floats], Iterator[tuple[MetricSums, MetricSums]]]:
    """The rows by arm and bucket up to each look, shape (2, BUCKETS), and the sums of both arms.

    They are added up as arrays: a look at the dicts that `MetricSums.read` takes would cost more than the statistics.
    """
    sums, buckets = sums_of(metric), rows.buckets.astype(np.uint8)
    keys, values = sums.additions(metric, LabelledRows(rows.task, rows.outcomes, rows.scores, None, buckets))
    if issubclass(sums, ScoreHistogram):
        # Empty bins change no statistic, and most bins are empty.
        occupied, bins = np.unique(keys % BINS, return_inverse=True)
        shape = (UNIT_GROUPS, 2, len(occupied))
        totals = _up_to(ends, rows.arms, (keys - FIRST_KEY) // BINS * len(occupied) + bins, values, shape)
        counts = _up_to(ends, rows.arms, buckets, np.ones(len(buckets)), (BUCKETS,))
        return counts, ((sums(arms[0]), sums(arms[1])) for arms in totals)
    counts, again = (_up_to(ends, rows.arms, buckets, np.ones(len(buckets)), (BUCKETS,)) for _ in range(2))
    totals = _up_to(ends, rows.arms, keys, values, (BUCKETS,))
    pairs = zip(again, totals, strict=True)
    return counts, ((ClusteredSums(of[0], to[0]), ClusteredSums(of[1], to[1])) for of, to in pairs)


def _up_to(
    ends: NDArray[Any], arms: Integers, keys: NDArray[Any], values: Floats, shape: tuple[int, ...]
) -> Iterator[Floats]:
    """The sum of the values by arm and key over the rows up to each end, shape (2, *shape)."""
    size = prod(shape)
    places, sums = arms * size + keys, np.zeros(2 * size)
    for start, end in pairwise(ends):
        sums += np.bincount(places[start:end], values[start:end], minlength=2 * size)
        yield sums.reshape(2, *shape)


def _sums(sums: type[MetricSums], buckets: NDArray[Any], keys: NDArray[Any], values: Floats) -> MetricSums:
    return sums.read(_added(buckets, np.ones(len(buckets))), _added(keys, values))


def _added(keys: NDArray[Any], values: Floats) -> dict[int, Any]:
    """The sum of the values of each key."""
    different, at = np.unique(keys, return_inverse=True)
    return dict(zip(different.tolist(), np.bincount(at, values).tolist(), strict=True)) if len(keys) else {}


def takes_back(looks: Sequence[ConfidenceSequence]) -> bool:
    """Whether what all looks leave excludes zero at one look and no longer at a later one."""
    running, decided = RunningSequence(), False
    for look in looks:
        running = running.after(look)
        if decided and not running.excludes_zero:
            return True
        decided = decided or running.excludes_zero
    return False


def share_test(rows: Rows, base: Mask, counted: Mask, end: int) -> float:
    """The p-value of a share being alike in both arms, among the first `end` rows.

    Args:
        rows: the rows.
        base: the rows that the share is of.
        counted: those of them that count.
        end: how many rows to look at.
    """
    arms = []
    for arm in (0, 1):
        of_arm = base[:end] & (rows.arms[:end] == arm)
        whole, part = (rows.buckets[:end][mask] for mask in (of_arm, of_arm & counted[:end]))
        arms.append(ClusteredSums(*(np.bincount(b, minlength=BUCKETS).astype(np.float64) for b in (whole, part))))
    p = label_arrival([(arms[0], arms[1])])
    return 1.0 if p is None else p


def verdict_by_days(world: Days) -> tuple[int, float]:
    """The day of the first lasting verdict, and its sign, as `first_verdict` has them.

    Rows are independent here, so the sums over units are binomial.
    """
    champion, challenger = (
        {day: {0: float(world.rows), 1: float(hits)} for day, hits in enumerate(arm)} for arm in world.hits.T
    )
    return first_verdict(_looks_at_days(world), champion, challenger)


def _looks_at_days(world: Days) -> Iterator[ConfidenceSequence]:
    for day in range(1, len(world.hits) + 1):
        n = world.rows * day
        shares = world.hits[:day].sum(axis=0) / n
        error = float(np.sqrt((shares * (1.0 - shares)).sum() / n))
        estimate = Estimate(float(shares[1] - shares[0]), error, 2 * n)
        yield confidence_sequence(estimate, alpha=ALPHA, tuning_n=TUNING_N)


def first_verdict(
    looks: Iterable[ConfidenceSequence | None], champion: DayTotals, challenger: DayTotals, looks_a_day: int = 1
) -> tuple[int, float]:
    """The day of the first lasting verdict, and its sign; 0 and 0 where none comes.

    Rows and days must both exclude zero, on the same side, looked at where a cycle ends.

    Args:
        looks: the looks at the rows, equally many on each day; None while there are too few rows.
        champion: its totals by day, counted from 0.
        challenger: likewise.
        looks_a_day: how many looks a day has.
    """
    rows = RunningSequence()
    for number, look in enumerate(looks, 1):
        rows = rows if look is None else rows.after_or_anew(look)
        day, into_the_day = divmod(number, looks_a_day)
        if into_the_day or day % CYCLE or not rows.excludes_zero:
            continue
        sequence = day_sequence(cycle_effects(ClusteredSums, [(champion, challenger)], range(day), CYCLE), ALPHA)
        if sequence is not None and sequence[1].excludes_zero and (sequence[1].low > 0.0) == (rows.low > 0.0):
            return day, 1.0 if rows.low > 0.0 else -1.0
    return 0, 0.0


def tail_outcome(world: DelayedRows, metric: Metric, window_s: float) -> tuple[bool, bool]:
    """Whether a verdict comes, and whether the tail withholds it at the end, where a missing label means negative.

    As the product has it: among the labels that matured rows have by now the share that came after the window must be
    alike, a verdict waits for one more window once that can be tested, and most labels must come within the window.
    """
    rows, times, label_times = world.rows, world.times, world.label_times
    within = label_times <= times + window_s
    seen = Rows(rows.arms, rows.buckets, within.astype(np.float64), rows.scores)
    running, least_p, tested_at, is_short = RunningSequence(), 1.0, np.inf, False
    for end, look in row_looks(seen, metric):
        now = times[end - 1] + window_s
        labelled = label_times <= now
        labelled[end:] = False
        of_arms = [labelled & (rows.arms == arm) for arm in (0, 1)]
        running = running.after_or_anew(look)
        if min(map(np.count_nonzero, of_arms)) < MIN_MATURED_ROWS:
            continue
        tested_at = min(tested_at, now)
        least_p = min(least_p, share_test(rows, labelled, ~within, end))
        is_short = bool(min(np.count_nonzero(arm & within) / np.count_nonzero(arm) for arm in of_arms) < MIN_COVERAGE)
        is_clean = least_p >= BLOCKING_P and not is_short
        if running.excludes_zero and is_clean and now >= tested_at + window_s:
            return True, False
    return False, least_p < BLOCKING_P or is_short


def area_off(random: np.random.Generator, base: float, rows: int) -> float:
    """How far the AUC of rare events is from the exact one, in standard errors of independent rows."""
    logits = base + 1.2 * random.normal(size=rows)
    scores = expit(logits)
    outcomes = (random.random(rows) < scores).astype(np.float64)
    positive = outcomes == 1.0
    count = int(positive.sum())
    ranks = rankdata(scores)
    exact = (ranks[positive].sum() - count * (count + 1) / 2.0) / (count * (rows - count))
    # The placements of the positives vary most: their spread is nearly the whole variance where events are rare.
    placements = (ranks[positive] - rankdata(scores[positive])) / (rows - count)
    error = placements.std(ddof=1) / np.sqrt(count)
    metric = metric_named("auc")
    buckets = random.integers(0, BUCKETS, rows).astype(np.uint8)
    keys, values = sums_of(metric).additions(metric, LabelledRows("binary", outcomes, scores, None, buckets))
    binned = _sums(sums_of(metric), buckets, keys, values).estimate
    value = binned.value if np.isfinite(binned.value) else exact  # too few positives give no figure at all
    return float(abs(value - exact) / error)
