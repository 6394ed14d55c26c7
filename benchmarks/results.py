"""`python -m benchmarks.results [--json FILE] [--only PART] [--quick]`: what results cost, beside their targets.

Three parts: `join` measures the worker's join in this process, `stack` an embedded stack (Kafka, Valkey and all
services on free ports of this machine, stopped afterwards), `recovery` a worker after a long history. Ratios to a
control of the same run are printed below: the machine may be shared.
"""

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results_join, results_recovery
from benchmarks.feedback_history import OPEN_ROWS
from benchmarks.figures import report
from benchmarks.results_freshness import RUN_S, Freshness
from benchmarks.results_page import EXPERIMENTS_ANNOUNCED, READS, measure_page
from benchmarks.results_stack import open_stack, start_experiment

TARGETS: Mapping[str, tuple[str, float | None]] = {
    "predictions_per_s": (">=", 50_000.0),
    "feedback_per_s": (">=", 10_000.0),
    "freshness_p99_ms": ("<", 1_000.0),
    "page_ms": ("<", 300.0),
    "recovery_s": ("<", 15.0),
    "bytes_per_open_prediction": ("", None),
}
QUICK = 10
"""How much smaller everything is with --quick."""


def measure(names: Sequence[str], scale: int = 1) -> dict[str, Any]:
    """The figures of some names, with the details of their parts; everything is `scale` times smaller."""
    figures: dict[str, Any] = {}
    if set(names) & {"predictions_per_s", "feedback_per_s", "bytes_per_open_prediction"}:
        figures.update(results_join.measure_join(results_join.FRAMES // scale))
    if set(names) & {"freshness_p99_ms", "page_ms"}:
        figures.update(_on_a_stack(names, scale))
    if "recovery_s" in names:
        rows, open_rows = results_recovery.ROWS // scale, OPEN_ROWS // scale
        figures.update(results_recovery.measure_recovery(rows, open_rows))
    return figures


def _on_a_stack(names: Sequence[str], scale: int) -> dict[str, Any]:
    """Pages first: then freshness is measured among their experiments."""
    figures: dict[str, Any] = {}
    with open_stack() as stack:
        settings = stack.settings
        router, feedback, kafka = settings.url("ab_router"), settings.url("feedback_service"), settings.kafka_address
        if "page_ms" in names:
            experiments = max(2, EXPERIMENTS_ANNOUNCED // scale)
            figures.update(asyncio.run(measure_page(kafka, feedback, experiments, READS)))
        if "freshness_p99_ms" in names:
            with stack.client() as client:
                experiment = start_experiment(client)
            figures.update(asyncio.run(Freshness(router, feedback, kafka, experiment, max(15.0, RUN_S / scale)).run()))
    return figures


def main() -> None:
    """Measure, print a table, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", choices=list(TARGETS), action="append", help="one figure alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="everything ten times smaller, for trying")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    measured = measure(arguments.only or list(TARGETS), QUICK if arguments.quick else 1)
    measured |= {"load_average_before": load, "load_average_after": os.getloadavg()[0], "cores": os.cpu_count()}
    report(measured, TARGETS, arguments.json)


if __name__ == "__main__":
    main()
