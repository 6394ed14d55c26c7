"""What the feature benchmarks run on: Kafka, Valkey and the feature service as processes of their own."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from pydantic import Field
from redis import Redis

from contender.features.catalogue import Catalogue
from contender.features.definitions import FeatureView
from embedded.jars import ensure_jars
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from embedded.process import ManagedProcess
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from embedded.valkey import Valkey
from services.feature_service.domain.rings import Ring, Rings

MODULE = "benchmarks.features_definitions"
START_S = 90
_LIVE_S = 30
_POLL_S = 0.02
_WORKER_ABOVE = 10
_HIGHEST_PORT = 65_535 - _WORKER_ABOVE
ProcessT = TypeVar("ProcessT", bound=ManagedProcess)


class BenchmarkSettings(StackSettings):
    """The stack's settings with the one of the feature service that a benchmark needs."""

    features: str = Field(MODULE, description="Python module that holds the feature definitions.")


@dataclass(frozen=True, slots=True)
class Stack:
    """The running processes and where to reach them. The worker is started and stopped by who measures it."""

    folder: Path
    settings: StackSettings
    kafka: str
    valkey: str
    web: Service
    worker: Service
    rings: Rings

    @property
    def partitions(self) -> int:
        """Of topic entity-events."""
        return self.settings.partitions

    def rings_of(self, source: str) -> Sequence[Ring]:
        """The rings that a source's events go into."""
        return self.rings.by_source[source]

    def start(self, process: ProcessT) -> ProcessT:
        """Start one of the processes and wait until it is ready."""
        process.start()
        process.wait_ready(START_S)
        return process

    def wait_live(self) -> None:
        """Wait until every ring is fed by the worker's stream.

        Raises:
            TimeoutError: the worker does not take them over.
        """
        wanted = {ring.name.encode() for ring in self.rings.all()}
        end = time.monotonic() + _LIVE_S
        with Redis.from_url(self.valkey) as redis:
            while not all(wanted <= _members(redis, partition) for partition in range(self.partitions)):
                if time.monotonic() > end:
                    raise TimeoutError(f"the rings are not fed after {_LIVE_S} s: see {self.worker.log}")
                time.sleep(_POLL_S)

    def applied(self, redis: Redis) -> dict[int, int]:
        """Per partition the last offset that is merged and on disk; -1: none."""
        held = redis.mget([f"{{feeds.{partition}}}:applied" for partition in range(self.partitions)])
        return {partition: -1 if offset is None else int(offset) for partition, offset in enumerate(held)}

    def cpu_s(self, process: ManagedProcess) -> float:
        """The processor time that a process has taken so far, in seconds."""
        used = psutil.Process(process.pid).cpu_times()
        return float(used.user + used.system)


@contextmanager
def open_stack() -> Iterator[Stack]:
    """Start Kafka, Valkey, web and worker on free ports; all of it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="contender-benchmark-") as name, ExitStack() as cleanup:
        folder = Path(name)
        kafka_port, controller_port, valkey_port = free_ports(3)
        settings = BenchmarkSettings(
            home=folder,
            features=MODULE,
            kafka_port=kafka_port,
            kafka_controller_port=controller_port,
            valkey_port=valkey_port,
            feature_service_port=_port_pair(),
        )
        kafka = KafkaBroker(folder / "kafka", kafka_port, controller_port, ensure_jars(StackSettings.load().jar_cache))
        valkey = Valkey(folder / "valkey", valkey_port)
        web, worker = (Service(ServiceProcess("feature_service", role), settings) for role in ("web", "worker"))
        for process in (kafka, valkey, web, worker):
            cleanup.callback(process.stop)
            process.start()
            process.wait_ready(START_S)
        stack = Stack(folder, settings, kafka.bootstrap, valkey.url, web, worker, _rings())
        stack.wait_live()
        yield stack


def _rings() -> Rings:
    kept = Catalogue.load(MODULE).kept
    return Rings.of({label: view for label, view in kept.items() if isinstance(view, FeatureView)})


def _members(redis: Redis, partition: int) -> set[bytes]:
    members = redis.smembers(f"{{feeds.{partition}}}:live")
    return {member if isinstance(member, bytes) else member.encode() for member in members}


def _port_pair() -> int:
    """A free port whose worker's port is free too."""
    while True:
        port = free_ports(1)[0]
        if port <= _HIGHEST_PORT:
            return port
