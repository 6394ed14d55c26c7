"""Worlds of predictions with their outcomes: what reaches the statistics of two arms, in the order of time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from services.feedback_service.domain.sums.units import BUCKETS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ROWS = 20_000
_BASE, _SPREAD = -1.3, 1.0
"""Logit of the base rate, and how much rows differ."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the order of their time; arm 0 is the champion's. Every array has shape (rows,)."""

    arms: Integers
    buckets: Integers
    outcomes: Floats
    scores: Floats
    task: str = "binary"


def independent(random: np.random.Generator, *, share: float = 0.5, base: float = _BASE, certain: float = 0.0) -> Rows:
    """Each row is a unit of its own, and its score the true probability.

    Args:
        random: draws.
        share: the challenger's share of the rows.
        base: logit of the base rate.
        certain: share of the rows whose score is certain, and wrong.
    """
    probabilities = expit(base + _SPREAD * random.normal(size=ROWS))
    outcomes = (random.random(ROWS) < probabilities).astype(np.float64)
    arms = (random.random(ROWS) < share).astype(np.int64)
    scores = np.where(random.random(ROWS) < certain, 1.0 - outcomes, probabilities)
    return Rows(arms, random.integers(0, BUCKETS, ROWS), outcomes, scores)


def units(random: np.random.Generator, *, count: int, exponent: float | None = None) -> Rows:
    """Units return: rows of one unit share its base rate and its variant.

    Args:
        random: draws.
        count: units.
        exponent: of the Pareto distribution of rows over units; None: all units have equally many.
    """
    sizes = np.ones(count) if exponent is None else random.pareto(exponent, count) + 1.0
    unit = random.choice(count, ROWS, p=sizes / sizes.sum())
    rates = expit(_BASE + random.normal(size=count))
    outcomes = (random.random(ROWS) < rates[unit]).astype(np.float64)
    arms, buckets = random.integers(0, 2, count), random.integers(0, BUCKETS, count)
    return Rows(arms[unit], buckets[unit], outcomes, expit(_BASE + 0.5 * random.normal(size=ROWS)))


def regression(random: np.random.Generator, *, degrees: float = np.inf, worse: float = 0.0) -> Rows:
    """Errors of a regression.

    Args:
        random: draws.
        degrees: degrees of freedom of Student's t; infinite: normal.
        worse: by which share the champion's errors are larger.
    """
    errors = random.normal(size=ROWS) if np.isinf(degrees) else random.standard_t(degrees, ROWS)
    arms = random.integers(0, 2, ROWS)
    errors = errors * np.where(arms == 0, 1.0 + worse, 1.0)
    return Rows(arms, random.integers(0, BUCKETS, ROWS), errors, np.zeros(ROWS), "regression")


@dataclass(frozen=True, slots=True)
class DelayedRows:
    """Rows whose positive label comes later, or never: times in seconds, infinite where no label comes."""

    rows: Rows
    times: Floats
    label_times: Floats


def slow_labels(random: np.random.Generator, *, mean_delays_s: tuple[float, float]) -> DelayedRows:
    """A row a second; one model in both arms, but the labels of each take their own time on average."""
    rows = independent(random)
    times = np.arange(ROWS, dtype=np.float64)
    delays = random.exponential(np.array(mean_delays_s)[rows.arms])
    return DelayedRows(rows, times, np.where(rows.outcomes == 1.0, times + delays, np.inf))


@dataclass(frozen=True, slots=True)
class Days:
    """Hits of both arms in equally many rows a day, shape (days, 2), with how often the day was looked at."""

    hits: Integers
    rows: int


def week(random: np.random.Generator, *, per_day: int, days: int = 56) -> Days:
    """The challenger is 2 points better from Monday to Friday and 8 points worse at weekends; any day is the first."""
    weekday = (random.integers(7) + np.arange(days)) % 7
    return _days(random, np.where(weekday < 5, 0.02, -0.08), per_day)  # noqa: PLR2004 - Saturday


def day_effects(random: np.random.Generator, *, per_day: int = 5_000, days: int = 84) -> Days:
    """Each day has an effect of its own, of 2 points, that is nil on average."""
    return _days(random, random.normal(0.0, 0.02, days), per_day)


def steady(random: np.random.Generator, *, effect: float, per_day: int = 5_000, days: int = 84) -> Days:
    """The same effect on each day."""
    return _days(random, np.full(days, effect), per_day)


def _days(random: np.random.Generator, effects: Floats, per_day: int) -> Days:
    rows = per_day // 2
    shares = np.column_stack([np.full(len(effects), 0.8), 0.8 + effects])
    return Days(random.binomial(rows, shares), rows)


def dropped(random: np.random.Generator) -> tuple[Rows, NDArray[np.bool_]]:
    """One model in both arms, of which the champion's drops a sixth of the hard rows; and which rows are answered."""
    rows = independent(random)
    loss = -np.log(np.where(rows.outcomes == 1.0, rows.scores, 1.0 - rows.scores))
    drops: NDArray[np.bool_] = (rows.arms == 0) & (loss > 1.5) & (random.random(len(loss)) < 0.17)  # noqa: PLR2004 - hard rows
    return rows, ~drops


@dataclass(frozen=True, slots=True)
class SelectiveRows:
    """Rows whose answer decides whether their label is seen; both variants score all of them.

    `rows.scores` are those of the row's own variant, `scores` has shape (2, rows), champion first.
    `label_probabilities` are the recorded ones, 0 where no label is seen, shape (rows,).
    """

    rows: Rows
    scores: Floats
    label_probabilities: Floats


def selective(random: np.random.Generator, *, is_better: bool, explored: float = 0.01) -> SelectiveRows:
    """Each variant blocks the 5 % that it scores highest, but for a share that is let through at random."""
    count = 2 * ROWS
    one, two, three = random.normal(size=(3, count))
    probabilities = expit(-3.2 + 1.2 * one + 1.2 * two + 0.8 * three)
    outcomes = (random.random(count) < probabilities).astype(np.float64)
    scores = np.array([expit(-2.95 + 1.2 * one + two), probabilities if is_better else expit(-2.4 + 1.2 * one)])
    arms = random.integers(0, 2, count)
    blocked = (scores >= np.quantile(scores, 0.95, axis=1, keepdims=True))[arms, np.arange(count)]
    is_explored = random.random(count) < explored
    seen = np.where(blocked, np.where(is_explored, explored, 0.0), 1.0)
    rows = Rows(arms, random.integers(0, BUCKETS, count), outcomes, scores[arms, np.arange(count)])
    return SelectiveRows(rows, scores, seen)
