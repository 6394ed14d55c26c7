"""A whole stack for tests, as a user runs it from the command line: in a folder and on ports of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contender import Client
from embedded.ports import is_free
from embedded.settings import StackSettings
from embedded.state import ProcessState, StackState, read
from shared.settings import SERVICE_NAMES

DEADLINE_S = 60
NAMES = ("AB_ROUTER", "FEATURE_SERVICE", "INFERENCE_SERVICE", "FEEDBACK_SERVICE", "KAFKA", "KAFKA_CONTROLLER", "VALKEY")


@dataclass
class Stack:
    """A stack in a folder and on ports of its own."""

    home: Path
    environment: dict[str, str]

    def run(self, *arguments: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "contender.cli", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "contender.cli", *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)

    @property
    def settings(self) -> StackSettings:
        ports: dict[str, Any] = {
            f"{name.lower()}_port": int(self.environment[f"CONTENDER_{name}_PORT"]) for name in NAMES
        }
        return StackSettings(home=self.home, **ports)

    @property
    def state(self) -> StackState:
        state = read(self.settings.state_file)
        assert state is not None
        return state

    def process(self, name: str) -> ProcessState:
        return next(process for process in self.state.processes if process.name == name)

    def client(self) -> Client:
        urls = {service: self.settings.url(service) for service in SERVICE_NAMES}
        return Client(urls["ab_router"], urls=urls)


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.1)


def stack_in(home: Path, kafka_jars: list[Path]) -> Stack:
    """A stack that is not started yet, with its data below `home`."""
    (home / "cache").mkdir()
    (home / "cache" / "jars").symlink_to(kafka_jars[0].parent)
    # A worker answers ten ports above its service, so the ports stand apart.
    first = next(port for port in range(18_400, 30_000, 100) if _all_free(port))
    ports = dict(zip(NAMES, range(first, first + len(NAMES)), strict=True))
    environment = {
        **os.environ,
        "CONTENDER_HOME": str(home),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        **{f"CONTENDER_{name}_PORT": str(port) for name, port in ports.items()},
    }
    return Stack(home, environment)


def _all_free(first: int) -> bool:
    return all(is_free(port) for port in range(first, first + 20))
