"""Simulates worlds on the product's own statistics, and prints what came against what is wanted.

    python -m benchmarks.simulate [--quick] [--only NAME]

All draws are seeded. A share of runs may lie above its limit by 1.65 standard errors: the runs are few. It ends with 0
when all is as wanted, else with 1. `--quick` takes a tenth of the runs.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks.simulate import bandits, flights, plans, segments, shadows, verdicts
from benchmarks.simulate.lines import Lines

LINES: Lines = {**plans.LINES, **verdicts.LINES, **segments.LINES, **shadows.LINES, **bandits.LINES, **flights.LINES}


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
