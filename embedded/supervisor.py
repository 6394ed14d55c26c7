"""Starts the stack's processes in order, restarts those that die or hang, and stops all in reverse order."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from embedded.errors import EmbeddedError, PortInUseError
from embedded.folder import exclusive, take_over
from embedded.log_files import DiskWatch, SupervisorLog, bound_logs
from embedded.ports import is_free
from embedded.settings import StackSettings
from embedded.state import StackState, describe_start, own_state, write
from embedded.watched import Stages, StallTimeouts, Watched

PORT_WAIT_S = 3
TICK_S = 0.2
STARTING_TICK_S = 0.05
OVERSLEPT_S = 5.0
"""A tick this late means that the supervisor was paused or starved, and its processes perhaps with it."""

HOUSEKEEPING_S = 1.0
HEARTBEAT_S = 5.0
"""How often the state is written while the stack starts: whoever waits sees that the supervisor works."""

Progress = Callable[[str], None]


class Supervisor:
    """Runs the stack until `stop` is called.

    Args:
        settings: folders, ports and timeouts.
        stages: processes by stage, each with every port that it listens on. A stage starts when the stage before it is
            ready, and stages stop in reverse order.
        report: called with a line about a process that ended, hung or was started again; the log has the line, too.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        settings: StackSettings,
        stages: Stages,
        report: Progress = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        timeouts = StallTimeouts(settings.live_stall_timeout_s, settings.start_stall_timeout_s)
        self._settings = settings
        self._clock = clock
        self._stages = [
            [Watched(process, ports, timeouts, clock=clock) for process, ports in stage] for stage in stages
        ]
        self._report_line = report
        self._log = SupervisorLog(settings.supervisor_log)
        self._own = own_state("supervisor")
        self._stopping = threading.Event()
        self._ready = False
        self._disk = DiskWatch(settings.data_folder, settings.logs)
        self._written: StackState | None = None
        self._written_at = self._ticked_at = self._housekept_at = 0.0

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    def run(self, progress: Progress, on_ready: Callable[[], None]) -> None:
        """Start, watch, and stop everything; returns when all processes have ended.

        Raises:
            EmbeddedError: the stack can't start; nothing is left running.
        """
        with exclusive(self._settings):
            take_over(self._settings.data_folder)
            failure = ""
            with ThreadPoolExecutor(max(1, len(list(self._all()))), "probe") as pool:
                try:
                    self._start(pool, progress)
                    self._ready = not self._stopping.is_set()
                    self._write()
                    if self._ready:
                        on_ready()
                    while not self._stopping.wait(TICK_S):
                        self._tick(pool)
                except EmbeddedError as error:
                    # A Ctrl-C also ends a process that starts just then and has no session of its own yet.
                    if not self._stopping.is_set():
                        failure = str(error)
                        raise
                finally:
                    self._stop_all(progress, failure)

    def _start(self, pool: ThreadPoolExecutor, progress: Progress) -> None:
        for watched in self._all():
            for needed in watched.ports:
                if not is_free(needed.port, wait_s=PORT_WAIT_S):
                    raise PortInUseError(watched.name, needed)
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        self._log.write(f"the supervisor starts, process {self._own.pid}")
        for stage in self._stages:
            if self._stopping.is_set():
                return
            for watched in stage:
                watched.start_first(self._clock())
            waits = [True]
            while any(waits) and not self._stopping.wait(STARTING_TICK_S):
                self._tick(pool)
                progress(describe_start(self._state()))
                waits = [watched.keeps_waiting(self._clock()) for watched in stage]

    def _tick(self, pool: ThreadPoolExecutor) -> None:
        now = self._clock()
        if self._ticked_at and now - self._ticked_at > OVERSLEPT_S:
            self._report(f"the supervisor was paused for {now - self._ticked_at:.0f} s: all timeouts begin again")
            for watched in self._all():
                watched.restart_timeouts(now)
        self._ticked_at = now
        for watched in self._all():
            if watched.started_at:
                watched.probe_in(pool, now)
                self._check(watched, now)
        if now - self._housekept_at > HOUSEKEEPING_S:
            self._housekept_at = now
            self._keep_house()
        self._write_if_changed(now)

    def _check(self, watched: Watched, now: float) -> None:
        was_ready = watched.announced
        if line := watched.check(now):
            self._report(line)
        if watched.announced and not was_ready and watched in self._stages[0]:  # the other processes need it
            self._start_now(other for other in self._all() if other is not watched)

    def _keep_house(self) -> None:
        bound_logs(self._settings.logs, self._settings.log_limit_bytes)
        was_full = self._disk.is_full
        if line := self._disk.look():
            self._report(line)
        if was_full and not self._disk.is_full:
            self._start_now(self._all())

    def _start_now(self, processes: Iterable[Watched]) -> None:
        for watched in processes:
            watched.start_now(self._clock())

    def _report(self, line: str) -> None:
        self._log.write(line)
        if self._ready:
            self._report_line(line)

    def _stop_all(self, progress: Progress, failure: str) -> None:
        progress("stopping")
        for stage in reversed(self._stages):
            for watched in stage:
                if watched.process.alive:
                    watched.process.terminate()
            asked_at = self._clock()
            for watched in stage:  # their deadlines run side by side, so that a stage takes the longest of them
                watched.process.stop(max(0.0, asked_at + watched.process.stop_s - self._clock()))
        self._ready = False
        self._log.write("the supervisor ends" + (f": {failure}" if failure else ""))
        self._write(failure)

    def _all(self) -> Iterator[Watched]:
        for stage in self._stages:
            yield from stage

    def _state(self, failure: str = "") -> StackState:
        return StackState(self._own, [watched.state for watched in self._all()], self._ready, failure)

    def _write_if_changed(self, now: float) -> None:
        due = not self._ready and now - self._written_at > HEARTBEAT_S
        if due or self._state() != self._written:
            self._write()

    def _write(self, failure: str = "") -> None:
        state = self._state(failure)
        try:
            write(self._settings.state_file, state)
        except OSError:  # on a full disk `status` sees an older state, and the next tick tries again
            return
        self._written, self._written_at = state, self._clock()


def stop_on_signals(supervisor: Supervisor) -> None:
    """Stop the supervisor on SIGTERM, SIGINT and SIGHUP."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())
