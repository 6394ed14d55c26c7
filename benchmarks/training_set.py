"""How long a training set takes and how much memory: `python -m benchmarks.training_set --json FILE`.

Each measurement runs in a process of its own, so that the peak is the builder's. `--history-rows` adds one over
generated events in Parquet files, larger than what is kept in memory at once.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from contender.features import Entity, EventSource, FeatureView, count, last, mean, std
from contender.training import build_training_set
from examples.flights import data, features

VIEWS = [features.origin_delays, features.carrier_delays, features.tail_delays]
FILES = 8
ENTITIES = 200_000
ROWS = 200_000
YEAR_S = 365 * 86_400
START = 1_700_000_000.0
SEED = 1

Measured = dict[str, float]


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--history-rows", type=int, default=0, help="events to generate; 20,000,000 take half a minute")
    parser.add_argument("--measure", choices=sorted(MEASUREMENTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(MEASUREMENTS[asked.measure](asked.folder)))
        return
    measured = _in_a_process("flights", Path())
    if asked.history_rows:
        with _history(asked.history_rows) as folder:
            measured.update(_in_a_process("history", folder), history_events=asked.history_rows)
    print(json.dumps(measured, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(measured, indent=2) + "\n")


def measure_flights(_: Path) -> Measured:
    """All flights with all streaming features, from frames."""
    flights = data.load()
    loaded_gb = _peak_gb()
    started = time.monotonic()
    built = build_training_set(VIEWS, flights.rows, flights.events)
    return {
        "training_set_s": round(time.monotonic() - started, 2),
        "training_set_gb": _peak_gb(),
        "training_set_rows": built.height,
        "loaded_gb": loaded_gb,
    }


def measure_history(folder: Path) -> Measured:
    """Rows over events in Parquet files, in buckets of entities."""
    shop = Entity("shop", "shop")
    sales = EventSource("sales", {"shop": str, "price": float}, history=str(folder / "*.parquet"))
    view = FeatureView("sales", shop, sales, [mean("price", "7d", "all"), std("price", "7d"), count("7d")], hop="1h")
    newest = FeatureView("newest", shop, sales, [last("price", "30d")], hop="1d")
    drawn = np.random.default_rng(SEED)
    times = START + drawn.uniform(0, YEAR_S, ROWS)
    rows = pl.DataFrame({"time": times, "shop": _shops(drawn, ROWS)})
    started = time.monotonic()
    build_training_set([view, newest], rows)
    return {"history_s": round(time.monotonic() - started, 2), "history_gb": _peak_gb()}


MEASUREMENTS: dict[str, Callable[[Path], Measured]] = {"flights": measure_flights, "history": measure_history}


def _in_a_process(measurement: str, folder: Path) -> Measured:
    command = [sys.executable, "-m", "benchmarks.training_set", "--measure", measurement, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own module
    measured: Measured = json.loads(done.stdout)
    return measured


@contextmanager
def _history(size: int) -> Iterator[Path]:
    """A folder of Parquet files with that many events, unordered."""
    drawn = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(FILES):
            events = size // FILES
            times, prices = START + drawn.uniform(0, YEAR_S, events), drawn.lognormal(3, 1, events)
            table = {"event_timestamp": times, "shop": _shops(drawn, events), "price": prices}
            pl.DataFrame(table).write_parquet(Path(folder) / f"{number}.parquet")
        yield Path(folder)


def _shops(drawn: np.random.Generator, size: int) -> pl.Series:
    return pl.Series(drawn.integers(0, ENTITIES, size)).cast(pl.String)


def _peak_gb() -> float:
    """The most memory that this process had, in GB; Linux counts in kB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


if __name__ == "__main__":
    main()
