"""Lines of A/B tests: one model in both arms, effects of days, slow labels, lost rows."""

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.simulate import looks, worlds
from benchmarks.simulate.lines import RUNS, SEED, Lines, within
from contender.contracts.metrics import metric_named
from services.feedback_service.domain.split import BLOCKING_P

_SAME: dict[str, Callable[[np.random.Generator], worlds.Rows]] = {
    "independent rows": worlds.independent,
    "units of 10 rows": partial(worlds.units, count=2_000),
    "units of 100 rows": partial(worlds.units, count=200),
    "200 units, Pareto .8": partial(worlds.units, count=200, exponent=0.8),
    "300 units, Pareto 1": partial(worlds.units, count=300, exponent=1.0),
    "2,000 units, Pareto 1.2": partial(worlds.units, count=2_000, exponent=1.2),
    "2,000 units, Pareto 2": partial(worlds.units, count=2_000, exponent=2.0),
    "split 99/1": partial(worlds.independent, share=0.01),
    "base rate 1 %": partial(worlds.independent, base=-5.0),
    "base rate .1 %": partial(worlds.independent, base=-7.4),
    ".1 % certain and wrong": partial(worlds.independent, certain=0.001),
    "errors of Student's t, 3 degrees": partial(worlds.regression, degrees=3.0),
}
"""Worlds with one model in both arms."""


def false_alarms(make: Callable[[np.random.Generator], worlds.Rows], runs: int) -> tuple[str, bool]:
    """The share of runs in which any look at one model in both arms excludes zero, by metric."""
    random, hits = np.random.default_rng(SEED), dict[str, int]()
    for _ in range(runs):
        rows = make(random)
        for metric in looks.deciding_metrics(rows.task):
            alarm = any(look.excludes_zero for _, look in looks.row_looks(rows, metric))
            hits[metric.name] = hits.get(metric.name, 0) + alarm
    shares = {name: count / runs for name, count in hits.items()}
    came = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return f"false alarms {came}; wanted <= 5 % each", all(within(share, runs) for share in shares.values())


def days(make: Callable[[np.random.Generator], worlds.Days], right: float, runs: int) -> tuple[str, bool]:
    """Verdicts by rows and days; `right` is the sign of the truth, 0 for none."""
    random = np.random.default_rng(SEED)
    verdicts = [looks.verdict_by_days(make(random)) for _ in range(runs)]
    signs = np.array([sign for _, sign in verdicts])
    wrong = float(np.mean((signs != 0.0) & (signs != right)))
    decided = [day for day, sign in verdicts if sign]
    came = f"wrong {wrong:.1%}, right {np.mean((signs == right) & (signs != 0.0)):.1%}"
    if decided:
        came += f", first verdict on day {np.median(decided):.0f} in the median"
    return f"{came}; wanted wrong <= 5 %", within(wrong, runs)


def slow_labels(window_s: float, runs: int) -> tuple[str, bool]:
    """Labels of one arm three times slower, one model."""
    random, metric = np.random.default_rng(SEED), metric_named("log_loss")
    outcomes = [
        looks.tail_outcome(worlds.slow_labels(random, mean_delays_s=(1_500.0, 4_500.0)), metric, window_s)
        for _ in range(runs)
    ]
    wrong, withheld = np.mean(outcomes, axis=0)
    return f"wrong {wrong:.1%}, withheld {withheld:.1%}; wanted <= 2 %, >= 95 %", wrong <= 0.02 and withheld >= 0.95  # noqa: PLR2004


def alike_labels(runs: int) -> tuple[str, bool]:
    """Labels of both arms equally slow: the check must not withhold."""
    random, metric = np.random.default_rng(SEED), metric_named("log_loss")
    outcomes = [
        looks.tail_outcome(worlds.slow_labels(random, mean_delays_s=(1_500.0, 1_500.0)), metric, 3_600.0)
        for _ in range(runs)
    ]
    wrong, withheld = np.mean(outcomes, axis=0)
    return f"wrong {wrong:.1%}, withheld {withheld:.1%}; wanted <= 5 % each", within(wrong, runs) and within(
        withheld, runs
    )


def taken_back(runs: int) -> tuple[str, bool]:
    """Errors that really differ: what all looks leave never flips back."""
    random, metric = np.random.default_rng(SEED), metric_named("absolute_error")
    shares = [
        looks.takes_back([look for _, look in looks.row_looks(worlds.regression(random, worse=0.05), metric)])
        for _ in range(runs)
    ]
    return f"verdicts taken back {np.mean(shares):.1%}; wanted 0 %", not any(shares)


def dropped_rows(runs: int) -> tuple[str, bool]:
    """The champion drops hard rows: the check of unanswered rows must see it."""
    random, hits = np.random.default_rng(SEED), 0
    for _ in range(runs):
        rows, answered = worlds.dropped(random)
        everything = np.ones(len(answered), dtype=np.bool_)
        ends = range(1_000, len(answered) + 1, 1_000)
        hits += any(looks.share_test(rows, everything, ~answered, end) < BLOCKING_P for end in ends)
    return f"withheld {hits / runs:.1%}; wanted >= 95 %", hits / runs >= 0.95  # noqa: PLR2004


def rare_events(_: int) -> tuple[str, bool]:
    """How far the AUC of bins is from the exact one, in standard errors."""
    random = np.random.default_rng(3)
    off = [looks.area_off(random, base, rows=400_000) for base in (-3.0, -5.0, -6.5, -8.0, -9.0, -10.0)]
    came = " / ".join(f"{value:.3f}" for value in off)
    return f"AUC off by {came} standard errors; wanted < .2 each", max(off) < 0.2  # noqa: PLR2004


LINES: Lines = {
    **{name: (partial(false_alarms, make), RUNS) for name, make in _SAME.items()},
    "weekdays, 1,000 a day": (partial(days, partial(worlds.week, per_day=1_000), -1.0), RUNS),
    "weekdays, 5,000 a day": (partial(days, partial(worlds.week, per_day=5_000), -1.0), RUNS),
    "weekdays, 20,000 a day": (partial(days, partial(worlds.week, per_day=20_000), -1.0), RUNS),
    "effects of days, nil on average": (partial(days, worlds.day_effects, 0.0), RUNS),
    "independent days": (partial(days, partial(worlds.steady, effect=0.0), 0.0), RUNS),
    "independent days, +2 points": (partial(days, partial(worlds.steady, effect=0.02), 1.0), RUNS),
    "labels three times slower, window 1 h": (partial(slow_labels, 3_600.0), 100),
    "labels three times slower, window 2 h": (partial(slow_labels, 7_200.0), 100),
    "labels equally slow, window 1 h": (alike_labels, 100),
    "champion drops 1.1 % hard rows": (dropped_rows, 100),
    "errors 5 % smaller": (taken_back, 200),
    "rare events": (rare_events, 1),
}
