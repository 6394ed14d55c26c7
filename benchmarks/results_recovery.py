"""How soon a worker is caught up again after a kill -9, on its own disk and on an empty one, after a long history."""

import asyncio
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.feedback_history import OPEN_ROWS, PARTITIONS, History, Worker, send, servers
from embedded.ports import free_ports
from services.feedback_service.store import RedisSnapshots
from shared.topic_admin import ensure_topics

ROWS = 5_000_000
MISSED_ROWS = 10_000
"""Predictions that come while no worker runs."""

READ_WITHIN_S = 400.0
CAUGHT_UP_WITHIN_S = 120.0
_POLL_S = 0.1


def measure_recovery(rows: int = ROWS, open_rows: int = OPEN_ROWS) -> dict[str, Any]:
    """Let a worker read a history, kill it, let some more come, and time the next one until it has read everything.

    The next one finds the tables on the disk. Another one begins with an empty disk: it restores the tables from their
    changelog.
    """
    with tempfile.TemporaryDirectory(prefix="contender-recovery-") as name, servers(Path(name)) as (kafka, valkey):
        asyncio.run(ensure_topics(kafka, partitions=PARTITIONS, replication=1))
        asyncio.run(send(kafka, History(rows, 0.0, open_rows)))
        worker = _worker(Path(name), kafka, valkey, "worker")
        try:
            began = time.monotonic()
            worker.start()
            _wait_caught_up(valkey, time.time(), READ_WITHIN_S)
            read_s, cpu_s = time.monotonic() - began, _cpu_s(worker)
            recovery_s = _recover(worker, kafka, valkey)
            worker.stop(signal.SIGKILL)
            empty = _worker(Path(name), kafka, valkey, "empty")
            worker = empty
            empty_disk_s = _recover(empty, kafka, valkey)
        finally:
            worker.stop(signal.SIGKILL)
    return {
        "recovery_s": recovery_s,
        "recovery_on_an_empty_disk_s": empty_disk_s,
        "recovery_rows": rows,
        "recovery_open_rows": min(rows, open_rows),
        "history_read_s": read_s,
        "worker_predictions_per_cpu_s": rows / cpu_s,
    }


def _recover(worker: Worker, kafka: str, valkey: str) -> float:
    """Seconds from the start of a worker, after its predecessor was killed, until it is caught up."""
    worker.stop(signal.SIGKILL)
    asyncio.run(send(kafka, History(MISSED_ROWS, 0.0)))
    began, started_at = time.monotonic(), time.time()
    worker.start()
    _wait_caught_up(valkey, started_at, CAUGHT_UP_WITHIN_S)
    return time.monotonic() - began


def _worker(folder: Path, kafka: str, valkey: str, name: str) -> Worker:
    port = free_ports(1)[0]
    environment = {
        "CONTENDER_KAFKA": kafka,
        "CONTENDER_REDIS": valkey,
        "CONTENDER_DATA": str(folder / name),
        "CONTENDER_FEEDBACK_SERVICE_PORT": str(port - 10),
        "CONTENDER_FEEDBACK_RETENTION_S": "0",  # predictions are deleted two windows after they came
    }
    return Worker(Path(__file__).parents[1], environment, port, folder / f"{name}.log")


def _cpu_s(worker: Worker) -> float:
    used = psutil.Process(worker.process.pid if worker.process else None).cpu_times()
    return float(used.user + used.system)


def _wait_caught_up(valkey: str, since: float, within_s: float) -> None:
    asyncio.run(_caught_up(valkey, since, within_s))


async def _caught_up(valkey: str, since: float, within_s: float) -> None:
    """Return once all partitions have been read to their ends of a time after `since`."""
    snapshots = RedisSnapshots.connect(valkey, partitions=PARTITIONS)
    try:
        async with asyncio.timeout(within_s):
            while True:
                times = [snapshot.status.caught_up_at or 0.0 for snapshot in await snapshots.read("history")]
                if len(times) == PARTITIONS and min(times) >= since:
                    return
                await asyncio.sleep(_POLL_S)
    finally:
        await snapshots.close()
