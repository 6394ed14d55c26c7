"""Simulates worlds on the product's own statistics, and prints what came against what is wanted.

    python -m benchmarks.simulate [--quick] [--only NAME]

All draws are seeded. A share of runs may lie above its limit by 1.65 standard errors: the runs are few. It ends with 0
when all is as wanted, else with 1. `--quick` takes a tenth of the runs.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import sqrt

import numpy as np

from benchmarks.simulate import looks, plans, segments, worlds
from contender.contracts.metrics import metric_named
from services.feedback_service.domain.split import BLOCKING_P

RUNS, LIMIT, SEED = 300, 0.05, 7
LineOf = Callable[[int], tuple[str, bool]]
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


def within(share: float, runs: int, limit: float = LIMIT) -> bool:
    """Whether a share is at most the limit, give or take what chance adds."""
    return share <= limit + 1.65 * sqrt(limit * (1.0 - limit) / runs)


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


LINES: dict[str, tuple[LineOf, int]] = {
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
    "50 segments alike": (segments.null_segments, RUNS),
    "one of 10 segments harmed by 16 points": (segments.harmed_segment, RUNS),
    "4 points fading over 4 weeks": (segments.decay, RUNS),
    "4 points all along": (segments.constant, RUNS),
    "4 points all along, but at weekends": (partial(segments.constant, weekdays=0.1), RUNS),
    "4 points, and 2 of each day": (partial(segments.constant, spread=0.02), RUNS),
    "planned rows": (plans.plans, 100),
    "days left, rows alone": (partial(plans.days_left, cycle=0), 200),
    "days left, whole weeks": (partial(plans.days_left, cycle=7), 200),
    "days left, days that vary": (partial(plans.days_left, cycle=7, day_scale=0.04), 200),
}


def line(name: str, *, quick: bool) -> tuple[str, bool, float]:
    """One world's line, whether it is as wanted, and the seconds that it took."""
    make, runs = LINES[name]
    started = time.perf_counter()
    came, is_right = make(max(1, runs // 10) if quick else runs)
    return f"{name}: {came}", is_right, time.perf_counter() - started


def main(arguments: list[str] | None = None) -> int:
    """Run the worlds, two at a time."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--only", action="append", choices=list(LINES), help="this world; may be given several times")
    options = parser.parse_args(arguments)
    all_right = True
    with ProcessPoolExecutor(2) as pool:
        for came, is_right, took_s in pool.map(partial(line, quick=options.quick), options.only or list(LINES)):
            print(f"{'  ' if is_right else '! '}{came} ({took_s:.0f} s)", flush=True)
            all_right = all_right and is_right
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())
