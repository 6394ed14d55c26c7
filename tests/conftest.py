"""Real Kafka and Valkey for tests that need them: started once a session on free ports, gone with it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contender.embedded.jars import ensure_jars
from contender.embedded.kafka import KafkaBroker
from contender.embedded.ports import free_ports
from contender.embedded.valkey import Valkey

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
