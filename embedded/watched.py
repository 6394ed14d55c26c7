"""A process under supervision: when a dead one is started again, and when a silent one is replaced."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from embedded.errors import DiedError, EmbeddedError, last_logged_error
from embedded.ports import NeededPort
from embedded.process import ManagedProcess
from embedded.state import ProcessState, created

FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 60.0
STEADY_S = 120.0
"""A process that has run for longer than the longest backoff has recovered: its next backoff is the first again."""

KILL_S = 5.0
"""Seconds that a silent process has to end by itself before it is killed."""

LATE_ENDS = 3
"""A start does not wait for a worker that ended this often in a row; the worker is still started again."""

PROBE_S = 2.0
STARTING_PROBE_S = 0.1
Stages = Sequence[Sequence[tuple[ManagedProcess, Sequence[NeededPort]]]]
"""Processes by stage, each with every port that it listens on."""


@dataclass(frozen=True, slots=True)
class StallTimeouts:
    """How long a process may be silent (`live_s`), and how long a start waits without progress (`start_s`)."""

    live_s: float = 20.0
    start_s: float = 300.0


@dataclass
class Watched:
    """A process and what its supervisor knows of it. Only `probe` may run outside the supervisor's thread."""

    process: ManagedProcess
    ports: Sequence[NeededPort]
    timeouts: StallTimeouts = StallTimeouts()
    started_at: float = 0.0
    created: float = 0.0
    restarts: int = 0
    ends_in_a_row: int = 0
    cause: str = ""
    retry_at: float = 0.0
    retry_time: float = 0.0
    kill_at: float = 0.0
    listening: bool = False
    answered_at: float = 0.0
    ready: bool = False
    announced: bool = False
    progress: str = ""
    progressed_at: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _probe_at: float = 0.0
    _probing: "Future[None] | None" = None

    @property
    def name(self) -> str:
        """The process's name."""
        return self.process.name

    @property
    def state(self) -> ProcessState:
        """Its entry in the state file, which `status` shows."""
        return ProcessState(
            self.name,
            self.process.port,
            self.process.pid,
            self.created,
            self.restarts,
            ready=self.ready,
            progress="" if self.ready else self.progress,
            cause=self.cause,
            retry_at=self.retry_time if self.retry_at else 0.0,
        )

    def start(self, now: float) -> None:
        """Start it, and forget what was known of its former run.

        Raises:
            OSError: it can't be started.
            EmbeddedError: it can't be prepared.
            subprocess.TimeoutExpired: preparing it takes too long.
        """
        self.retry_at = self.kill_at = 0.0
        self.listening = self.ready = self.announced = False
        self.progress = ""
        self.started_at = self.answered_at = self.progressed_at = now
        self.process.start()
        self.created = created(pid) if (pid := self.process.pid) else 0.0

    def start_first(self, now: float) -> None:
        """Start it for the first time.

        Raises:
            EmbeddedError: it can't be started.
        """
        try:
            self.start(now)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"{self.name} can't be started: {error}.") from error

    def keeps_waiting(self, now: float) -> bool:
        """Whether a start waits for it.

        Raises:
            DiedError: the stack needs it, and it has ended or makes no progress.
        """
        if self.ready:
            return False
        ended, hangs = not self.process.alive, now - self.progressed_at > self.timeouts.start_s
        if not self.process.essential:
            return not hangs and self.ends_in_a_row < LATE_ENDS
        if ended:
            raise DiedError(
                self.name, f"{_describe_end(self.process)} while starting", self.process.log, self.process.log_start
            )
        if hangs:
            what = f"was not ready after {self.timeouts.start_s:g} s"
            raise DiedError(self.name, what, self.process.log, self.process.log_start)
        return True

    def probe_in(self, pool: Executor, now: float) -> None:
        """Probe it in a thread of the pool, unless a probe is running or has just run."""
        if now < self._probe_at or not self.process.alive or (self._probing and not self._probing.done()):
            return
        self._probe_at = now + (PROBE_S if self.ready else STARTING_PROBE_S)
        self._probing = pool.submit(self.probe, self.process.pid)

    def probe(self, pid: int | None) -> None:
        """Ask whether it lives and is ready, and note the answer if it still is the process with that id."""
        if not self.process.is_live(self.timeouts.live_s) or self.process.pid != pid:
            return
        self.answered_at = self.clock()
        self.listening = True
        if self.ready:
            return
        readiness = self.process.readiness()
        if self.process.pid == pid:
            if readiness.progress != self.progress:
                self.progress, self.progressed_at = readiness.progress, self.clock()
            self.ready = readiness.ready

    def check(self, now: float) -> str:
        """Start it again when it has ended, and end it when it is silent; return a line about what was done."""
        if not self.process.alive:
            if not self.retry_at:
                return self._note_end(now)
            return self._start_again(now) if now >= self.retry_at else ""
        if self.kill_at:
            if now >= self.kill_at:
                self.process.send_kill()
            return ""
        timeout_s = self.timeouts.live_s if self.listening else self.timeouts.start_s
        if now - self.answered_at > timeout_s:
            return self._replace(now, timeout_s)
        if self.ends_in_a_row and now - self.started_at > STEADY_S:
            self.ends_in_a_row = 0
        if self.ready and not self.announced:
            self.announced = True
            return f"{self.name} is ready{' again' if self.restarts else ''} after {now - self.started_at:.1f} s"
        return ""

    def restart_timeouts(self, now: float) -> None:
        """Begin all timeouts again, because the supervisor itself was paused, and perhaps the whole machine."""
        self.answered_at = self.progressed_at = now

    def start_now(self, now: float) -> None:
        """Start it at the next tick if it has ended, because what it needs is back."""
        self.ends_in_a_row = 0
        if self.retry_at:
            self.retry_at = now

    def _note_end(self, now: float) -> str:
        if not self.kill_at:
            by_itself = (self.process.exit_code or 0) > 0
            cause = last_logged_error(self.process.log, self.process.log_start) if by_itself else ""
            self.cause = _describe_end(self.process) + (f": {cause}" if cause else "")
        return self._postpone(now)

    def _postpone(self, now: float) -> str:
        wait_s = min(FIRST_BACKOFF_S * 2.0 ** min(self.ends_in_a_row, 20), LAST_BACKOFF_S)
        self.ends_in_a_row += 1
        self.ready = False
        self.retry_at, self.retry_time = now + wait_s, time.time() + wait_s
        return f"{self.name} {self.cause}; restart {self.restarts + 1} in {wait_s:g} s"

    def _start_again(self, now: float) -> str:
        self.restarts += 1
        try:
            self.start(now)
        except (OSError, EmbeddedError, subprocess.TimeoutExpired) as error:
            self.cause = f"can't be started: {error}"
            return self._postpone(now)
        return f"{self.name} was started again, restart {self.restarts}"

    def _replace(self, now: float, timeout_s: float) -> str:
        self.cause = f"did not answer /livez for {timeout_s:g} s and was ended"
        self.kill_at = now + KILL_S
        self.process.terminate()
        return f"{self.name} did not answer /livez for {timeout_s:g} s: it is ended and started again"


def _describe_end(process: ManagedProcess) -> str:
    code = process.exit_code or 0
    if code >= 0:
        return f"ended with exit code {code}"
    known = {int(number): number.name for number in signal.Signals}
    return f"was ended by signal {-code} ({known.get(-code, 'unknown')})"
