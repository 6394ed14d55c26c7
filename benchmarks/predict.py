"""`python -m benchmarks.predict [--json FILE] [--only PART]`: what a prediction costs, beside a bare endpoint.

Starts the whole stack on free ports of this machine, a control (`benchmarks.control`), and wrk, and stops all of them
afterwards. Ratios are medians over rounds that alternate with their control, so that a noisy machine meets both alike.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks import control
from benchmarks.features_reading import ENTITIES, Caller, Probed, fill_entities
from benchmarks.features_stack import MODULE, START_S, BenchmarkSettings
from benchmarks.figures import report
from contender import Client
from contender.contracts.ab_router import PredictionRow
from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.features.catalogue import Catalogue
from contender.registration import Export, export_pipeline, register
from contender.transport import Transport
from embedded.jars import ensure_jars
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports, is_free
from embedded.process import ManagedProcess
from embedded.service import SERVICES, Service
from embedded.settings import StackSettings
from embedded.valkey import Valkey
from services.ab_router.domain.assignment import InForce
from shared.settings import SERVICE_NAMES

TARGETS: Mapping[str, tuple[str, float]] = {
    "full_c32_vs_control": (">=", 0.65),
    "full_c32_p99_vs_control": ("<=", 5.0),
    "full_c1_p50_vs_control": ("<=", 8.0),
    "plain_c32_vs_control": (">=", 0.9),
    "plain_c1_p50_vs_control": ("<=", 5.0),
    "batch64_rows_per_s": (">=", 30_000.0),
    "shadow_cost": ("<", 0.1),
    "assign_us": ("<", 10.0),
    "stack_pss_mb": ("<", 1_300.0),
}
PARTS = ("full", "plain", "batch", "shadow", "assign")
ROUNDS, ROUND_S, ALONE_CALLS = 5, 4, 400
BATCH_ROWS, BATCH_CONNECTIONS = 64, 8
PACED_CONNECTIONS = 64
_ASSIGNMENTS = 20_000
_TIME_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Load:
    """One round: requests a second, and the median and the 99th percentile of their latency in seconds."""

    per_s: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Question:
    """A request that is repeated."""

    port: int
    path: str
    body: object

    def load(self, connections: int, pause_s: float = 0.0) -> Load:
        """Send it over connections that all wait for their answers, for a round.

        Args:
            connections: how many.
            pause_s: how long each waits after an answer, on average; the times are spread evenly from 0 to twice that.

        Raises:
            RuntimeError: an answer is no 2xx.
        """
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "post.lua"
            script.write_text(
                "wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\n"
                f"wrk.body = [==[{json.dumps(self.body)}]==]\n"
                + (f"function delay() return math.random(0, {round(2e3 * pause_s)}) end\n" if pause_s else "")
            )
            command = ["wrk", "-t1", f"-c{connections}", f"-d{ROUND_S}s", "--latency", "-s", str(script)]
            done = subprocess.run(  # noqa: S603 - our own arguments
                [*command, f"http://127.0.0.1:{self.port}{self.path}"], capture_output=True, text=True, check=True
            )
        if "Non-2xx" in done.stdout:
            raise RuntimeError(f"{self.path} is not answered with 2xx: {done.stdout}")
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        p50, p99 = (re.search(rf"{part}%\s+([\d.]+)(us|ms|s)", done.stdout) for part in (50, 99))
        if rate is None or p50 is None or p99 is None:
            raise RuntimeError(f"wrk says something else: {done.stdout}")
        p50_s, p99_s = (float(match[1]) * _TIME_UNITS[match[2]] for match in (p50, p99))
        return Load(float(rate[1]), p50_s, p99_s)

    def alone_s(self) -> float:
        """The median latency of calls one after the other."""
        return statistics.median(Caller(self.port, "POST", self.path, self.body).latencies(ALONE_CALLS))


@dataclass(frozen=True, slots=True)
class Running:
    """The running processes, and the questions that are measured."""

    processes: Mapping[str, ManagedProcess]
    control: Question
    full: Question
    plain: Question
    batch: Question
    shadowed: Question

    def pss_mb(self) -> float:
        """The memory of the stack, shared pages divided among those who share them."""
        found = [psutil.Process(process.pid) for process in self.processes.values()]
        everyone = [process for parent in found for process in (parent, *parent.children(recursive=True))]
        return sum(process.memory_full_info().pss for process in everyone) / 1e6

    def cpu_s(self) -> dict[str, float]:
        """The processor time of each process so far."""
        used: dict[str, float] = {}
        for name, process in self.processes.items():
            parent = psutil.Process(process.pid)
            times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
            used[name] = sum(each.user + each.system for each in times)
        return used


def measure(parts: Sequence[str]) -> dict[str, Any]:
    """Every figure of some parts, targets and details together."""
    figures: dict[str, Any] = {"assign_us": assign_us()} if "assign" in parts else {}
    if set(parts) - {"assign"}:
        with open_stack() as running:
            for part in parts:
                if part in ("full", "plain"):
                    figures |= _compared(running, part)
                if part == "batch":
                    figures |= _batch(running)
                if part == "shadow":
                    figures |= _shadow(running)
            figures["stack_pss_mb"] = running.pss_mb()
    return figures


def _compared(running: Running, name: str) -> dict[str, Any]:
    ours: Question = getattr(running, name)
    for question in (ours, running.control):
        question.load(32)
        question.alone_s()
    loads, alone, spent = [], [], []
    for _ in range(ROUNDS):
        theirs = running.control.load(32)
        before = running.cpu_s()
        mine = ours.load(32)
        after = running.cpu_s()
        spent.append({process: 1e6 * (after[process] - before[process]) / (mine.per_s * ROUND_S) for process in after})
        loads.append((mine, theirs))
        alone.append((ours.alone_s(), running.control.alone_s()))
    return {
        f"{name}_c32_vs_control": statistics.median(mine.per_s / theirs.per_s for mine, theirs in loads),
        f"{name}_c32_p99_vs_control": statistics.median(mine.p99_s / theirs.p99_s for mine, theirs in loads),
        f"{name}_c1_p50_vs_control": statistics.median(mine / theirs for mine, theirs in alone),
        f"{name}_per_s": [round(mine.per_s) for mine, _ in loads],
        f"{name}_control_per_s": [round(theirs.per_s) for _, theirs in loads],
        f"{name}_c1_ms": [round(1e3 * mine, 3) for mine, _ in alone],
        f"{name}_control_c1_ms": [round(1e3 * theirs, 3) for _, theirs in alone],
        f"{name}_cpu_us_per_call": {
            process: round(statistics.median(each[process] for each in spent)) for process in spent[0]
        },
    }


def _batch(running: Running) -> dict[str, Any]:
    running.batch.load(BATCH_CONNECTIONS)
    rates = [BATCH_ROWS * running.batch.load(BATCH_CONNECTIONS).per_s for _ in range(ROUNDS)]
    return {"batch64_rows_per_s": statistics.median(rates), "batch64_rates": [round(rate) for rate in rates]}


def _shadow(running: Running) -> dict[str, Any]:
    """How much the median latency rises where every row is scored in shadow, at half of the most requests a second."""
    saturated = statistics.median(running.full.load(32).per_s for _ in range(ROUNDS))
    pause_s = PACED_CONNECTIONS / (saturated / 2)
    pause_s -= running.full.load(PACED_CONNECTIONS, pause_s).p50_s
    rounds = [
        (running.full.load(PACED_CONNECTIONS, pause_s), running.shadowed.load(PACED_CONNECTIONS, pause_s))
        for _ in range(ROUNDS)
    ]
    return {
        "shadow_cost": statistics.median(shadowed.p50_s / alone.p50_s - 1 for alone, shadowed in rounds),
        "shadow_saturated_per_s": round(saturated),
        "shadow_per_s": [(round(alone.per_s), round(shadowed.per_s)) for alone, shadowed in rounds],
        "shadow_p50_ms": [(round(1e3 * alone.p50_s, 2), round(1e3 * shadowed.p50_s, 2)) for alone, shadowed in rounds],
    }


def assign_us() -> float:
    """Microseconds that the assignment of a unit to one of three variants takes."""
    variants = [VariantAllocation(name, name, share) for name, share in (("a", 0.5), ("b", 0.25), ("c", 0.25))]
    experiment = ExperimentRevision(
        name="e",
        model="m",
        revision=1,
        epoch=1,
        status="running",
        seed="a9c01f5be7d24c33",
        champion="a",
        variants=variants,
        metric="log_loss",
        window_s=60.0,
        changed_at=0.0,
    )
    in_force = InForce([experiment])
    rows = [PredictionRow(f"user-{number}") for number in range(_ASSIGNMENTS)]

    def run() -> None:
        for row in rows:
            in_force.assign(row)

    return 1e6 * min(timeit.repeat(run, number=1, repeat=5)) / _ASSIGNMENTS


@contextmanager
def open_stack() -> Iterator[Running]:
    """Start the stack and the control on free ports, with two models that have an experiment each."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk, a package of most systems")
    with tempfile.TemporaryDirectory(prefix="contender-benchmark-") as name, ExitStack() as cleanup:
        folder = Path(name)
        ports = iter(free_ports(4))
        first = _port_range()
        settings = BenchmarkSettings(
            home=folder,
            features=MODULE,
            kafka_port=next(ports),
            kafka_controller_port=next(ports),
            valkey_port=next(ports),
            ab_router_port=first,
            feature_service_port=first + 1,
            inference_service_port=first + 2,
            feedback_service_port=first + 3,
        )
        processes: dict[str, ManagedProcess] = {
            "kafka": KafkaBroker(
                folder / "kafka",
                settings.kafka_port,
                settings.kafka_controller_port,
                ensure_jars(StackSettings.load().jar_cache),
            ),
            "valkey": Valkey(folder / "valkey", settings.valkey_port),
            **{process.name: Service(process, settings) for process in SERVICES},
        }
        for process in processes.values():
            cleanup.callback(process.stop)
            process.start()
            process.wait_ready(START_S)
        urls = {service: settings.url(service) for service in SERVICE_NAMES}
        with Client(urls["ab_router"], urls=urls) as client, Transport(urls) as transport:
            for model, sources in (("plain", {}), ("full", _sources()), ("shadowed", _sources())):
                versions = [register(transport, model, _sourced(seed, sources)) for seed in (1, 2)]
                outcome = "independent of the answer" if model == "shadowed" else "may depend on the answer"
                client.experiment(model, challenger=versions[1], champion=versions[0], outcome=outcome).start()
        fill_entities(settings.port("feature_service"))
        model_file = folder / "model.onnx"
        rows, model = _fitted(1)
        options = {"zipmap": False}
        file = to_onnx(model, rows.to_numpy(np.float32)[:1], options=options)
        model_file.write_bytes(file.SerializeToString())
        port = next(ports)
        command = [sys.executable, "-m", control.__name__, str(port), str(model_file)]
        server = Probed("control", command, port=port, log=folder / "control.log", path="/readyz")
        cleanup.callback(server.stop)
        server.start()
        server.wait_ready(START_S)
        router = settings.port("ab_router")
        row = {name: 0.1 * number for number, name in enumerate(control.COLUMNS)}
        asked = {"unit": "u-17", "inputs": row}
        entities = {key: names[1] for key, names in ENTITIES.items()}
        yield Running(
            processes,
            Question(port, "/predict", row),
            Question(router, "/v1/models/full/predict", {"unit": "u-17", "entities": entities}),
            Question(router, "/v1/models/plain/predict", asked),
            Question(
                router,
                "/v1/models/plain/predict/batch",
                {"rows": [{**asked, "unit": f"u-{number}"} for number in range(BATCH_ROWS)]},
            ),
            Question(router, "/v1/models/shadowed/predict", {"unit": "u-17", "entities": entities}),
        )


def _sources() -> dict[str, str]:
    """The features that stand for the model's columns."""
    references = Catalogue.load(MODULE).services["fifteen"].features
    return dict(zip(control.COLUMNS, references, strict=True))


def _sourced(seed: int, sources: Mapping[str, str]) -> Export:
    rows, model = _fitted(seed)
    return export_pipeline(model, rows, sources=dict(sources), defaults=dict.fromkeys(sources, 0.0))


def _fitted(seed: int) -> tuple[pd.DataFrame, HistGradientBoostingClassifier]:
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(random.normal(size=(2_000, len(control.COLUMNS))), columns=control.COLUMNS)
    labels = rows["x0"] + rows["x1"] * rows["x2"] + random.normal(size=len(rows)) > 0
    return rows, HistGradientBoostingClassifier(max_iter=40).fit(rows, labels)


def _port_range() -> int:
    """The first of some free ports in a row whose workers' ports are free too."""
    return next(first for first in range(20_000, 30_000, 40) if all(is_free(port) for port in range(first, first + 20)))


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
