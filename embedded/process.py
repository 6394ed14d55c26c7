"""One process of the stack: it dies with its parent, logs to a file, and stops within a deadline."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from embedded.errors import DiedError

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
POLL_S = 0.05
PROBE_TIMEOUT_S = 1.0
_BODY_BYTES = 64 * 1024


class Readiness(NamedTuple):
    """Whether a process can do its job, and how far it has come."""

    ready: bool
    progress: str = ""


class ManagedProcess:
    """A process that cannot outlive the thread that started it.

    Subclasses report when it is ready, and whether the stack needs it (`essential`). It runs in a session of its own,
    so that a Ctrl-C reaches only its supervisor.
    """

    essential = True

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        port: int,
        log: Path,
        env: Mapping[str, str] | None = None,
        stop_s: float = 15,
    ) -> None:
        self.name = name
        self.port = port
        self.log = log
        self.stop_s = stop_s
        self._command = [str(part) for part in command]
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self.log_start = 0
        """Where in its log the present run begins."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended: the exit code, the negated signal number, or None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it; return at once.

        Raises:
            OSError: it cannot be started, or its log cannot be written.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid()), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if self._env is None else dict(self._env),
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether it answers; returns within about a second."""
        return self.alive

    def is_live(self, timeout_s: float) -> bool:  # noqa: ARG002 - subclasses with a probe use it
        """Whether it answers within that time; callable from any thread."""
        return self.alive

    def readiness(self) -> Readiness:
        """Whether it can do its job, and how far it has come; returns within some seconds, callable from any thread."""
        return Readiness(self.is_ready())

    def wait_ready(self, deadline_s: float) -> None:
        """Block until it answers.

        Raises:
            DiedError: it ended, or does not answer after `deadline_s`.
        """
        end = time.monotonic() + deadline_s
        while not self.is_ready():
            if not self.alive:
                raise DiedError(self.name, f"ended with exit code {self.exit_code} while starting", self.log)
            if time.monotonic() > end:
                raise DiedError(self.name, f"was not ready after {deadline_s:g} s", self.log)
            time.sleep(POLL_S)

    def terminate(self) -> None:
        """Ask it to end; return at once."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)

    def stop(self, deadline_s: float | None = None) -> None:
        """Ask it to end, and kill it when it has not ended after `deadline_s` (default `stop_s`)."""
        if self._process is None:
            return
        self.terminate()
        try:
            self._process.wait(self.stop_s if deadline_s is None else deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def send_kill(self) -> None:
        """Kill it without waiting for its end."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def exchange(port: int, request: bytes, answer_bytes: int) -> bytes:
    """Send a request to a local port and return the first `answer_bytes` of the answer; b"" without an answer."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(request)
            while len(answer) < answer_bytes and (part := connection.recv(answer_bytes - len(answer))):
                answer += part
    except OSError:
        return b""
    return answer if len(answer) == answer_bytes else b""


def answers_ok(host: str, port: int, path: str) -> bool:
    """Whether an HTTP GET is answered with 200."""
    return get(host, port, path)[0] == 200  # noqa: PLR2004


def get(host: str, port: int, path: str, timeout_s: float = PROBE_TIMEOUT_S) -> tuple[int, bytes]:
    """Status and the beginning of the body of the answer to an HTTP GET; 0 and b"" without an answer.

    Args:
        host: address of the server.
        port: its port.
        path: path of the request.
        timeout_s: longest wait for each part of the answer.
    """
    connection = HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_BODY_BYTES)
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()
