"""Starts the stack's processes in order, restarts what dies, and stops all of them in reverse order."""

import fcntl
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from contender.embedded.errors import AlreadyRunningError, DiedError, DiskFullError, EmbeddedError, PortInUseError
from contender.embedded.ports import NeededPort, is_free
from contender.embedded.process import ManagedProcess
from contender.embedded.settings import StackSettings
from contender.embedded.state import ProcessState, StackState, created, write

READY_S = 60
PORT_PATIENCE_S = 3
TICK_S = 0.2
FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 10.0
DEATHS_LIMIT = 5
DEATHS_WINDOW_S = 60.0
"""A process that died this often within this time won't be helped by another start."""

Progress = Callable[[str], None]
Stages = Sequence[Sequence[tuple[ManagedProcess, Sequence[NeededPort]]]]


@dataclass
class Watched:
    """A process with the history of its deaths."""

    process: ManagedProcess
    ports: Sequence[NeededPort]
    deaths: deque[float] = field(default_factory=deque)
    restarts: int = 0
    start_again_at: float = 0.0
    given_up: str = ""

    @property
    def state(self) -> ProcessState:
        """What `status` shows of it."""
        pid = self.process.pid
        born = created(pid) if pid else 0.0
        return ProcessState(self.process.name, self.process.port, pid, born, self.restarts, self.given_up)

    def tend(self, now: float) -> bool:
        """Start it again when it is dead and its backoff has passed; whether anything changed."""
        if self.process.alive or self.given_up:
            return False
        if not self.start_again_at:
            self._note_death(now)
            return True
        if now < self.start_again_at:
            return False
        self.start_again_at = 0.0
        self.restarts += 1
        self.process.start()
        return True

    def _note_death(self, now: float) -> None:
        self.deaths.append(now)
        while self.deaths[0] < now - DEATHS_WINDOW_S:
            self.deaths.popleft()
        if len(self.deaths) >= DEATHS_LIMIT:
            self.given_up = (
                f"{self.process.name} died {len(self.deaths)} times within {DEATHS_WINDOW_S:g} s: "
                f"read {self.process.log}, then run `contender down` and `contender up`."
            )
        self.start_again_at = now + min(FIRST_BACKOFF_S * 2 ** (len(self.deaths) - 1), LAST_BACKOFF_S)


class Supervisor:
    """Runs the stack until it is told to stop.

    Args:
        settings: folders and ports.
        stages: processes by stage, each with every port that it listens on; a stage starts when the one before it is
            ready, and stages stop in reverse order.
    """

    def __init__(self, settings: StackSettings, stages: Stages) -> None:
        self._settings = settings
        self._stages = [[Watched(process, ports) for process, ports in stage] for stage in stages]
        self._stopping = threading.Event()
        self._ready = False

    def stop(self) -> None:
        """Ask a running `run` to end."""
        self._stopping.set()

    def run(self, progress: Progress, on_ready: Callable[[], None]) -> None:
        """Start, watch, and stop everything; returns when all processes have ended.

        Raises:
            EmbeddedError: the stack can't start; nothing is left running.
        """
        with exclusive(self._settings):
            failure = ""
            try:
                self._start(progress)
                self._ready = not self._stopping.is_set()
                self._write()
                if self._ready:
                    on_ready()
                self._watch()
            except EmbeddedError as error:
                failure = str(error)
                raise
            finally:
                self._stop_all(progress, failure)

    def _start(self, progress: Progress) -> None:
        for watched in self._all():
            for needed in watched.ports:
                if not is_free(needed.port, patience_s=PORT_PATIENCE_S):
                    raise PortInUseError(watched.process.name, needed)
        for stage in self._stages:
            progress("starting " + ", ".join(watched.process.name for watched in stage))
            for watched in stage:
                watched.process.start()
            self._write()
            for watched in stage:
                self._wait_ready(watched.process)

    def _wait_ready(self, process: ManagedProcess) -> None:
        end = time.monotonic() + READY_S
        while not self._stopping.is_set() and not process.is_ready():
            if not process.alive:
                raise DiedError(process.name, f"ended with exit code {process.exit_code} while starting", process.log)
            if time.monotonic() > end:
                raise DiedError(process.name, f"was not ready after {READY_S} s", process.log)
            self._stopping.wait(TICK_S / 4)

    def _watch(self) -> None:
        while not self._stopping.wait(TICK_S):
            now = time.monotonic()
            changed = [watched.tend(now) for watched in self._all()]  # every one is tended, not up to the first
            if any(changed):
                self._write()

    def _stop_all(self, progress: Progress, failure: str) -> None:
        progress("stopping")
        for stage in reversed(self._stages):
            for watched in stage:
                if watched.process.alive:
                    watched.process.terminate()
            for watched in stage:
                watched.process.stop()
        self._ready = False
        self._write(failure)

    def _all(self) -> Iterator[Watched]:
        for stage in self._stages:
            yield from stage

    def _write(self, failure: str = "") -> None:
        own = ProcessState("supervisor", 0, os.getpid(), created(os.getpid()))
        states = [watched.state for watched in self._all()]
        write(self._settings.state_file, StackState(own, states, self._ready, failure))


def stop_on_signals(supervisor: Supervisor) -> None:
    """End the supervisor's run on SIGTERM, SIGINT and SIGHUP."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())


@contextmanager
def exclusive(settings: StackSettings) -> Iterator[None]:
    """Hold the data folder, so that no other supervisor runs on it.

    Raises:
        AlreadyRunningError: another one holds it.
        DiskFullError: its disk has too little room.
        EmbeddedError: it can't be written.
    """
    folder = settings.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < settings.free_bytes:
            raise DiskFullError(folder)
        lock = _open_lock(folder)
    except OSError as error:
        raise EmbeddedError(
            f"{folder} can't be written ({error.strerror}): set CONTENDER_HOME to another folder."
        ) from error
    with lock:
        yield


def _open_lock(folder: Path) -> TextIO:
    lock = (folder / "stack.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise AlreadyRunningError(folder) from error
    return lock
