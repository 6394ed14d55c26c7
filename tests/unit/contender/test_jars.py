"""Kafka's jars: an intact cache needs no network, a damaged one is not used."""

import hashlib
from pathlib import Path

import pytest

from embedded.errors import JarsUnavailableError
from embedded.jars import Jar, ensure_jars, locked_jars
from embedded.ports import free_ports

CONTENT = b"a jar"
JAR = Jar("org.example", "example", "1.0", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def nowhere() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}/maven2"


def test_an_intact_cache_is_used_without_a_repository(tmp_path: Path, nowhere: str):
    (tmp_path / JAR.file_name).write_bytes(CONTENT)
    assert ensure_jars(tmp_path, [JAR], repository=nowhere) == [tmp_path / "example-1.0.jar"]


@pytest.mark.parametrize("content", [None, b"", b"a jar, changed"])
def test_a_missing_or_damaged_jar_is_never_used(tmp_path: Path, nowhere: str, content: bytes | None):
    if content is not None:
        (tmp_path / JAR.file_name).write_bytes(content)
    with pytest.raises(JarsUnavailableError, match="CONTENDER_MAVEN_REPOSITORY"):
        ensure_jars(tmp_path, [JAR], repository=nowhere)


def test_every_locked_jar_has_a_checksum():
    jars = locked_jars()
    assert any(jar.file_name.startswith("kafka_") for jar in jars)
    assert all(len(jar.sha256) == 64 for jar in jars)
