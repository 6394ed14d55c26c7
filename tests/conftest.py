"""Real Kafka, Valkey and PostgreSQL for tests that need them: started once a session on free ports, gone with it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.jars import ensure_jars
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from embedded.process import ManagedProcess
from embedded.valkey import Valkey
from tests.valkey_cluster import ValkeyCluster, running_cluster

START_DEADLINE_S = 60


@pytest.fixture(scope="session")
def kafka_jars() -> list[Path]:
    home = Path(os.environ.get("CONTENDER_HOME", Path.home() / ".contender"))
    return ensure_jars(home / "cache" / "jars")


@pytest.fixture(scope="session")
def kafka_broker(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    port, controller_port = free_ports(2)
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), port, controller_port, kafka_jars, heap="512m")
    broker.start()
    try:
        broker.wait_ready(START_DEADLINE_S)
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def kafka(kafka_broker: KafkaBroker) -> str:
    return kafka_broker.bootstrap


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"), free_ports(1)[0])
    server.start()
    try:
        server.wait_ready(START_DEADLINE_S)
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def valkey(valkey_server: Valkey) -> str:
    return valkey_server.url


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """Whoever stops one of its servers starts it again."""
    with running_cluster(tmp_path_factory.mktemp("valkey-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A database's SQLAlchemy URL; whoever uses it drops the tables of those before."""
    # Not below pytest's own folder, which only its user may enter.
    folder = Path(tempfile.mkdtemp(prefix="contender-postgres-", dir="/tmp"))
    server = Postgres(folder, free_ports(1)[0])
    try:
        server.start()
        server.wait_ready(START_DEADLINE_S)
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(folder)


class Postgres(ManagedProcess):
    """A PostgreSQL server with its data in `folder`; its test is skipped where the server is not installed."""

    def __init__(self, folder: Path, port: int) -> None:
        installed = sorted(
            Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True
        )
        initdb = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *map(str, installed)]))
        if initdb is None:
            pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
        self.folder = folder
        self.programs = Path(initdb).resolve().parent
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "lock_timeout=10s"]
        command = [self.programs / "postgres", "-D", folder / "data", "-p", str(port)]
        command += [part for option in options for part in ("-c", option)]
        super().__init__("postgres", [*self._unprivileged(), *command], port=port, log=folder / "postgres.log")

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://contender@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        if user := self._user():
            shutil.chown(self.folder, user)
        arguments = ["-D", self.folder / "data", "-U", "contender", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        if not (self.folder / "data").exists():
            subprocess.run(
                [*self._unprivileged(), self.programs / "initdb", *arguments],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                timeout=START_DEADLINE_S,
                check=True,
            )
        super().start()

    def is_ready(self) -> bool:
        """Whether it takes connections; while it starts it refuses them."""
        probe = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return self.alive and subprocess.run(probe, check=False).returncode == 0

    def terminate(self) -> None:
        """Ask it to end without waiting for its clients."""
        self._signal(signal.SIGINT)

    @classmethod
    def _unprivileged(cls) -> list[str | Path]:
        """What runs a command as another user: as root the server refuses to start."""
        if not (user := cls._user()):
            return []
        setpriv = shutil.which("setpriv")
        assert setpriv is not None, "setpriv is missing: apt-get install util-linux"
        group = str(pwd.getpwnam(user).pw_gid)
        # A process that changes its user loses the leash that ends it with its parent.
        return [setpriv, f"--reuid={user}", f"--regid={group}", "--clear-groups", "--pdeathsig=INT"]

    @staticmethod
    def _user() -> str:
        if os.geteuid() != 0:
            return ""
        return "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
