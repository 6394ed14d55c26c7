"""`python -m benchmarks.feedback_history [--rows N] [--root FOLDER]`: the feedback worker after a long history.

Starts Kafka and Valkey on free ports of this machine, sends N predictions and labels for a part of them straight to
Kafka, and lets one worker read them: rows a second, its memory, the seconds until it is ready again after SIGTERM and
after a kill. `--root` runs the worker of another checkout on the same records, for a ratio in one run.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from aiokafka import AIOKafkaProducer

from embedded.jars import ensure_jars
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from embedded.valkey import Valkey
from shared.events import FeedbackFrame, FeedbackGiven, PredictionBlock, PredictionFrame
from shared.ids import new_frame_id
from shared.topic_admin import ensure_topics
from shared.topics import FEEDBACK, PREDICTIONS, cloud_event_headers

PARTITIONS = 4
FRAME_ROWS = 1_000
OPEN_ROWS = 500_000
WINDOW_S = 30.0
VARIANTS = ("champion", "challenger")
START_S = 90
READ_WITHIN_S = 3_600
_POLL_S = 0.05
_MEGABYTE = 2**20


@dataclass
class History:
    """Makes frames whose rows lie as far apart as traffic with `open_rows` in its window."""

    rows: int
    labelled: float
    open_rows: int = OPEN_ROWS
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - data, no secret

    def frames(self) -> Iterator[tuple[int, str, bytes, bytes | None]]:
        """Shard, frame id, predictions and perhaps feedback of each frame."""
        step = WINDOW_S / self.open_rows
        began = time.time() - self.rows * step
        for number in range(self.rows // FRAME_ROWS):
            at = began + number * FRAME_ROWS * step
            frame_id = new_frame_id(time.time())
            feedback = None
            if self.chance.random() < self.labelled:
                events = [FeedbackGiven(frame_id, row, row % 2, at + 1.0) for row in range(FRAME_ROWS)]
                feedback = FEEDBACK.encode(FeedbackFrame(events))
            yield number % PARTITIONS, frame_id, PREDICTIONS.encode(self._frame(at)), feedback

    def _frame(self, at: float) -> PredictionFrame:
        half = FRAME_ROWS // len(VARIANTS)
        blocks = [
            PredictionBlock(
                model="m",
                version=variant,
                task="binary",
                classes=[0, 1],
                experiment="history",
                window_s=WINDOW_S,
                variant=variant,
                served_variant=variant,
                assignment_probability=0.5,
                unit=[f"u{self.chance.randrange(100_000)}" for _ in range(half)],
                time=[at] * half,
                score=[self.chance.random() for _ in range(half)],
            )
            for variant in VARIANTS
        ]
        return PredictionFrame(blocks)


@dataclass
class Worker:
    """A worker process of one checkout."""

    root: Path
    environment: dict[str, str]
    port: int
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> float | None:
        """Start it, and return the seconds until it was ready; None where it ended or took longer than START_S."""
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(self.root)}
        command = [sys.executable, "-m", "services.feedback_service", "worker"]
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=self.root, stderr=log)  # noqa: S603 - ours
        while not self._is_ready():
            if time.monotonic() - began > START_S or self.process.poll() is not None:
                print(self.log.read_text()[-2_000:], file=sys.stderr)
                return None
            time.sleep(_POLL_S)
        return round(time.monotonic() - began, 1)

    def stop(self, number: signal.Signals) -> None:
        """End it with a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(START_S)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self._get("metrics").decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    @property
    def megabytes(self) -> float:
        """Its memory."""
        return float(psutil.Process(self.process.pid if self.process else None).memory_info().rss) / _MEGABYTE

    def _is_ready(self) -> bool:
        try:
            self._get("readyz")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=20) as answer:
            content: bytes = answer.read()
            return content


async def send(kafka: str, history: History) -> int:
    """Send the history, and return the number of records."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", enable_idempotence=True, max_batch_size=2**20, linger_ms=20
    )
    await producer.start()
    records = 0
    try:
        for shard, frame_id, predictions, feedback in history.frames():
            headers = cloud_event_headers(PREDICTIONS, frame_id)
            await producer.send(PREDICTIONS.name, predictions, partition=shard, headers=headers)
            records += 1
            if feedback is not None:
                headers = cloud_event_headers(FEEDBACK, new_frame_id(time.time()))
                await producer.send(FEEDBACK.name, feedback, partition=shard, headers=headers)
                records += 1
        await producer.flush()
    finally:
        await producer.stop()
    return records


def measure(worker: Worker, history: History, records: int) -> dict[str, Any]:
    """Let a worker read everything, and start it again twice."""
    ready_empty_s = worker.start()
    before = worker.megabytes
    began, written = time.monotonic(), worker.metric("contender_feedback_snapshot_bytes_total")
    highest = before
    while worker.metric("contender_feedback_frames_total") < records:
        if time.monotonic() - began > READ_WITHIN_S:
            raise RuntimeError("the worker does not get through")
        highest = max(highest, worker.megabytes)
        time.sleep(0.25)
    took = time.monotonic() - began
    written = worker.metric("contender_feedback_snapshot_bytes_total") - written
    after = worker.megabytes
    time.sleep(3.0)  # what is unwritten yet is flushed
    worker.stop(signal.SIGTERM)
    again_s = worker.start()
    time.sleep(2.0)
    worker.stop(signal.SIGKILL)
    killed_s = worker.start()
    after_start = worker.megabytes if killed_s else None
    worker.stop(signal.SIGTERM)
    return {
        "rows": history.rows,
        "rows_per_s": round(history.rows / took),
        "megabytes_empty": round(before),
        "megabytes_highest": round(highest),
        "megabytes_after": round(after),
        "megabytes_after_restart": round(after_start) if after_start else None,
        "snapshot_bytes_per_s": round(written / took),
        "ready_empty_s": ready_empty_s,
        "ready_after_sigterm_s": again_s,
        "ready_after_kill_s": killed_s,
    }


@contextmanager
def servers(folder: Path) -> Iterator[tuple[str, str]]:
    """Kafka's and Valkey's addresses."""
    with ExitStack() as stack:
        home = Path(os.environ.get("CONTENDER_HOME", Path.home() / ".contender"))
        kafka_port, controller_port, valkey_port = free_ports(3)
        kafka = KafkaBroker(folder / "kafka", kafka_port, controller_port, ensure_jars(home / "cache" / "jars"))
        valkey = Valkey(folder / "valkey", valkey_port)
        for server in (kafka, valkey):
            server.start()
            stack.callback(server.kill)
            server.wait_ready(START_S)
        yield kafka.bootstrap, valkey.url


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--labelled", type=float, default=0.2, help="share of the frames that have labels")
    parser.add_argument("--root", type=Path, action="append", help="checkouts whose worker is measured; default: this")
    arguments = parser.parse_args()
    roots = [root.resolve() for root in arguments.root or [Path(__file__).parents[1]]]
    history = History(arguments.rows, arguments.labelled)
    with tempfile.TemporaryDirectory(prefix="contender-history-") as name, servers(Path(name)) as (kafka, valkey):
        asyncio.run(ensure_topics(kafka, partitions=PARTITIONS, replication=1))
        records = asyncio.run(send(kafka, history))
        for number, root in enumerate(roots):
            port = free_ports(1)[0]
            environment = {
                "CONTENDER_KAFKA": kafka,
                "CONTENDER_REDIS": valkey.removesuffix("/0") + f"/{number}",
                "CONTENDER_DATA": str(Path(name) / f"data-{number}"),
                "CONTENDER_FEEDBACK_SERVICE_PORT": str(port - 10),
            }
            worker = Worker(root, environment, port, Path(name) / f"worker-{number}.log")
            try:
                measured = measure(worker, history, records)
            finally:
                worker.stop(signal.SIGKILL)
            print(json.dumps({"root": str(root), **measured}), flush=True)


if __name__ == "__main__":
    main()
