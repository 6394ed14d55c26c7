"""`python -m benchmarks.features [--json FILE] [--only PART]`: what the feature service does, beside its targets.

Starts Kafka, Valkey and the service on free ports of this machine and stops them afterwards. Ratios are medians over
rounds that alternate with their control, so that a noisy machine meets both alike.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import training_set
from benchmarks.features_reading import measure_feast, measure_row
from benchmarks.features_stack import Stack, open_stack
from benchmarks.features_taking import (
    LEAST_EVENTS_PER_S,
    Departures,
    measure_frames,
    measure_freshness,
    measure_single,
)
from benchmarks.figures import report

TARGETS: Mapping[str, tuple[str, float]] = {
    "row_p50_vs_hmget": ("<=", 2.0),
    "rows50_vs_feast": (">=", 10.0),
    "events_per_s_frames": (">=", 20_000.0),
    "events_per_s_single": (">=", 4_000.0),
    "freshness_p99_ms": ("<", 500.0),
    "training_set_s": ("<", 20.0),
    "training_set_gb": ("<", 2.0),
}
TRAINING_DEADLINE_S = 300
PARTS = ("row", "feast", "frames", "single", "freshness", "training")


def measure(parts: Sequence[str]) -> dict[str, Any]:
    """Every figure of some parts, targets and details together."""
    figures: dict[str, Any] = {}
    if set(parts) - {"training"}:
        with open_stack() as stack:
            for part, run in _runs(stack, figures).items():
                if part in parts:
                    figures.update(run())
    if "training" in parts:
        figures.update(_training())
    return figures


def _runs(stack: Stack, figures: Mapping[str, Any]) -> dict[str, Callable[[], dict[str, Any]]]:
    """What measures each part; freshness comes after frames, whose rate it halves."""
    departures = Departures()

    def freshness() -> dict[str, Any]:
        rate = max(LEAST_EVENTS_PER_S, figures.get("events_per_s_frames", 0.0) / 2)
        return measure_freshness(stack, departures, rate)

    return {
        "row": lambda: measure_row(stack),
        "feast": lambda: measure_feast(stack),
        "frames": lambda: measure_frames(stack, departures),
        "single": lambda: measure_single(stack, departures),
        "freshness": freshness,
    }


def _training() -> dict[str, Any]:
    """The training set of all flights, built in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "-m", training_set.__name__, "--json", str(path)]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=TRAINING_DEADLINE_S, check=True)  # noqa: S603 - our own
        figures: dict[str, Any] = json.loads(path.read_text())
    return figures


def main() -> None:
    """Measure, print a table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", choices=PARTS, action="append", help="one part alone; may be repeated")
    arguments = parser.parse_args()
    measured = measure(arguments.only or PARTS)
    report(measured, TARGETS, arguments.json)


if __name__ == "__main__":
    main()
