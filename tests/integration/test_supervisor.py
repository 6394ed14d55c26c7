"""The supervisor with stand-in processes: what starts is watched, what dies starts again, what stops leaves nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from embedded import detached, stack
from embedded.errors import AlreadyRunningError, DiedError, DiskFullError, PortInUseError
from embedded.folder import exclusive
from embedded.ports import NeededPort, free_ports, is_free
from embedded.process import ManagedProcess, Readiness, get
from embedded.settings import StackSettings
from embedded.state import StackState, describe_late, read, runs
from embedded.supervisor import OVERSLEPT_S, Supervisor
from shared.clock import FixedClock

DEADLINE_S = 30
LIVE_S = 2.5
SERVE = (
    "import http.server as h, sys; h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.BaseHTTPRequestHandler)"
    ".serve_forever()"
)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


StandIn = tuple[ManagedProcess, list[NeededPort]]


class Asked(ManagedProcess):
    """A stand-in that is live while it answers, and whose readiness a test sets."""

    status = Readiness(ready=True)

    def is_live(self, timeout_s: float) -> bool:
        return get("127.0.0.1", self.port, "/", timeout_s)[0] != 0

    def readiness(self) -> Readiness:
        return self.status


class Worker(Asked):
    essential = False


class Deaf(Asked):
    """A stand-in that notes how long it was given to end."""

    deadline_s = -1.0

    def stop(self, deadline_s: float | None = None) -> None:
        assert deadline_s is not None
        self.deadline_s = deadline_s
        super().stop(deadline_s)


class PromptWorker(Worker):
    """A stand-in that lives as soon as it runs, however slowly it starts."""

    def is_live(self, timeout_s: float) -> bool:
        return self.alive


def lines_of(settings: StackSettings) -> list[str]:
    return settings.supervisor_log.read_text().splitlines()


def asked(kind: type[Asked], settings: StackSettings, name: str, port: int, code: str = SERVE) -> tuple[Asked, list]:
    command = [sys.executable, "-c", code, str(port)]
    return kind(name, command, port=port, log=settings.logs / f"{name}.log", stop_s=5), []


def stand_in(settings: StackSettings, name: str, port: int, code: str = SERVE) -> StandIn:
    command = [sys.executable, "-c", code, str(port)]
    process = ManagedProcess(name, command, port=port, log=settings.logs / f"{name}.log")
    return process, [NeededPort(port, "CONTENDER_X_PORT")]


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return StackSettings(home=tmp_path)


class Running:
    """A supervisor in a thread of its own."""

    def __init__(
        self,
        settings: StackSettings,
        *processes: StandIn,
        report: Callable[[str], None] = lambda _: None,
        progress: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.supervisor = Supervisor(settings, [processes], report, clock)
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.supervisor.run, args=(progress, self.ready.set))

    def __enter__(self) -> Self:
        self.thread.start()
        assert self.ready.wait(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()

    @property
    def state(self) -> StackState:
        state = read(self.settings.state_file)
        assert state is not None
        return state


def test_what_is_stopped_leaves_no_process(settings: StackSettings):
    first, second = free_ports(2)
    with Running(settings, stand_in(settings, "one", first), stand_in(settings, "two", second)) as running:
        processes = running.state.processes
        assert [process.name for process in processes] == ["one", "two"]
        assert all(runs(process) for process in processes)
    assert not any(runs(process) for process in processes)
    assert is_free(first)
    assert is_free(second)


def test_a_dead_process_starts_again(settings: StackSettings):
    [port] = free_ports(1)
    with Running(settings, stand_in(settings, "one", port)) as running:
        before = running.state.processes[0].pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: running.state.processes[0].pid not in (None, before))
        assert running.state.processes[0].restarts == 1


def test_a_process_that_keeps_dying_is_tried_again_and_says_why(settings: StackSettings):
    [port] = free_ports(1)
    file = settings.home / "b.csv"
    settings.home.mkdir(exist_ok=True)
    file.touch()
    code = (
        f"import os, sys, time\nwhile os.path.exists({str(file)!r}): time.sleep(0.02)\n"
        "sys.exit('there is no file b.csv')"
    )
    with Running(settings, stand_in(settings, "one", port, code)) as running:
        file.unlink()
        wait_for(lambda: running.state.processes[0].restarts >= 4)
        assert running.state.processes[0].cause == "ended with exit code 1: there is no file b.csv"
    ends = [line for line in lines_of(settings) if "one ended with exit code 1: there is no file b.csv; " in line]
    waits = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in ends]
    assert waits == sorted(set(waits))


def test_a_killed_process_leaves_a_line_with_the_signal_and_the_restart(settings: StackSettings):
    [port] = free_ports(1)
    lines: list[str] = []
    with Running(settings, stand_in(settings, "one", port), report=lines.append) as running:
        os.kill(running.state.processes[0].pid or 0, signal.SIGTERM)
        wait_for(lambda: running.state.processes[0].restarts == 1)
        wait_for(lambda: any("one is ready again" in line for line in lines))
    assert lines[:2] == ["one was ended by signal 15 (SIGTERM); restart 1 in 0.2 s", "one was started again, restart 1"]
    for line in lines:
        assert any(kept.endswith(line) for kept in lines_of(settings))


def test_a_process_that_answers_nothing_is_replaced(tmp_path: Path):
    settings = StackSettings(home=tmp_path, live_stall_timeout_s=1)
    [port] = free_ports(1)
    with Running(settings, asked(Asked, settings, "one", port)) as running:
        hung = running.state.processes[0]
        os.kill(hung.pid or 0, signal.SIGSTOP)
        wait_for(lambda: not runs(hung))
        wait_for(lambda: get("127.0.0.1", port, "/")[0] != 0)
        assert running.state.processes[0].cause == "did not answer /livez for 1 s and was ended"


def test_a_process_that_ignores_its_end_is_killed(tmp_path: Path):
    settings = StackSettings(home=tmp_path, live_stall_timeout_s=1)
    [port] = free_ports(1)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
    with Running(settings, asked(Asked, settings, "one", port, deaf)) as running:
        hung = running.state.processes[0]
        with socket.create_connection(("127.0.0.1", port)):  # it serves one at a time
            wait_for(lambda: not runs(hung))
        wait_for(lambda: running.state.processes[0].pid not in (None, hung.pid))


def test_the_next_stage_is_not_started_where_the_start_is_interrupted(settings: StackSettings):
    first, second = free_ports(2)
    never, _ = asked(Asked, settings, "one", first, "import time; time.sleep(600)")
    later, _ = asked(Asked, settings, "two", second)
    supervisor = Supervisor(settings, [[(never, [])], [(later, [])]])
    supervisor.run(lambda line: supervisor.stop() if "one" in line else None, lambda: None)
    assert (never.exit_code, later.exit_code) == (-signal.SIGTERM, None)
    assert not later.log.exists()


def test_processes_that_ignore_their_end_are_given_their_time_side_by_side(settings: StackSettings):
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    some = [asked(Deaf, settings, f"deaf-{port}", port, deaf) for port in free_ports(4)]
    for process, _ in some:
        process.stop_s = 1.5
    supervisor = Supervisor(settings, [some])

    def stop_once_all_are_deaf(_: str) -> None:
        if all(process.log.exists() and process.log.stat().st_size for process, _ in some):
            supervisor.stop()

    supervisor.run(stop_once_all_are_deaf, lambda: None)
    assert {process.exit_code for process, _ in some} == {-signal.SIGKILL}
    first_s, *others_s = [process.deadline_s for process, _ in some]
    assert 0 < first_s <= 1.5
    assert others_s == pytest.approx([0] * 3, abs=1e-6)  # their time ran out beside the first one's


def test_a_supervisor_that_was_stopped_itself_gives_its_processes_time_anew(
    tmp_path: Path, lone_supervisor: "subprocess.Popen[bytes]"
):
    settings = StackSettings(home=tmp_path)
    wait_for(lambda: (state := read(settings.state_file)) is not None and state.ready)
    state = read(settings.state_file)
    assert state is not None
    assert OVERSLEPT_S + 1 > 2 * LIVE_S
    child = psutil.Process(state.processes[0].pid)
    lone_supervisor.send_signal(signal.SIGSTOP)
    child.suspend()
    end = time.monotonic() + OVERSLEPT_S + 1
    wait_for(lambda: time.monotonic() > end)
    child.resume()
    lone_supervisor.send_signal(signal.SIGCONT)
    wait_for(lambda: "was paused for" in settings.supervisor_log.read_text())
    end = time.monotonic() + LIVE_S
    wait_for(lambda: time.monotonic() > end)
    assert runs(state.processes[0])


def test_a_worker_that_fails_leaves_the_others_running_and_is_named(settings: StackSettings):
    first, second = free_ports(2)
    failing = asked(Worker, settings, "worker", second, "raise SystemExit('the tables are damaged')")
    with Running(settings, stand_in(settings, "router", first), failing) as running:
        state = running.state
        assert state.ready
        [sentence] = describe_late(state)
        assert sentence.startswith(
            "worker is not ready (it ended with exit code 1: the tables are damaged): it is started"
        )
        wait_for(lambda: running.state.processes[1].restarts > state.processes[1].restarts)
        assert running.state.processes[0] == state.processes[0]


def test_a_worker_that_gets_on_is_waited_for_beyond_the_stall_timeout(tmp_path: Path):
    settings = StackSettings(home=tmp_path, start_stall_timeout_s=3)
    [port] = free_ports(1)
    worker, ports = asked(PromptWorker, settings, "worker", port)
    worker.status = Readiness(ready=False, progress="0 recovered")
    lines: list[str] = []
    clock = FixedClock(1000.0)
    running = Running(settings, (worker, ports), progress=lines.append, clock=clock.now)
    running.thread.start()
    for number in range(1, 7):  # seconds
        worker.status = Readiness(ready=False, progress=f"{number} recovered")
        clock.advance(1)
        wait_for(lambda number=number: lines[-1:] == [f"waiting for worker ({number} recovered)"])
        assert not running.ready.is_set()
    worker.status = Readiness(ready=True)
    clock.advance(1)
    assert running.ready.wait(DEADLINE_S)
    assert running.state.processes[0].ready
    running.__exit__()


def test_a_worker_that_stands_still_is_waited_for_only_until_the_stall_timeout(tmp_path: Path):
    settings = StackSettings(home=tmp_path, start_stall_timeout_s=0.5)
    [port] = free_ports(1)
    worker, ports = asked(PromptWorker, settings, "worker", port)
    worker.status = Readiness(ready=False, progress="7 recovered")
    with Running(settings, (worker, ports)) as running:
        assert describe_late(running.state)[0].startswith("worker is not ready (it shows no progress)")
        assert runs(running.state.processes[0])


def test_what_the_stack_is_of_no_use_without_stops_a_start_that_stands_still(tmp_path: Path):
    settings = StackSettings(home=tmp_path, start_stall_timeout_s=0.5)
    process, ports = asked(Asked, settings, "one", free_ports(1)[0])
    process.status = Readiness(ready=False)
    with pytest.raises(DiedError, match=r"one was not ready after 0\.5 s"):
        Supervisor(settings, [[(process, ports)]]).run(lambda _: None, lambda: None)
    assert not process.alive


def test_a_state_that_can_not_be_written_ends_nothing(settings: StackSettings):
    [port] = free_ports(1)
    with Running(settings, stand_in(settings, "one", port)) as running:
        in_the_way = settings.state_file.with_suffix(".new")
        in_the_way.mkdir()
        before = running.state.processes[0]
        os.kill(before.pid or 0, signal.SIGKILL)
        wait_for(lambda: "one is ready again" in settings.supervisor_log.read_text())
        assert running.state.processes[0] == before
        in_the_way.rmdir()
        wait_for(lambda: running.state.processes[0].restarts == 1)
        assert running.thread.is_alive()


def test_a_log_stays_below_its_limit_while_its_process_writes_on(tmp_path: Path):
    settings = StackSettings(home=tmp_path, log_limit_bytes=20_000)
    [port] = free_ports(1)
    code = "import time\nn = 0\nwhile True: print('line', n, flush=True); n += 1; time.sleep(0.0005)"
    with Running(settings, stand_in(settings, "one", port, code)):
        older = settings.logs / "one.log.1"
        wait_for(older.exists)
        log = settings.logs / "one.log"
        wait_for(lambda: 0 < log.stat().st_size < 10_000)
        assert b"\x00" not in log.read_bytes()


def test_a_second_supervisor_on_the_same_data_is_refused(settings: StackSettings):
    first, second = free_ports(2)
    with Running(settings, stand_in(settings, "one", first)):
        other = Supervisor(settings, [[stand_in(settings, "two", second)]])
        with pytest.raises(AlreadyRunningError, match="contender down"):
            other.run(lambda _: None, lambda: None)
        with pytest.raises(AlreadyRunningError):
            detached.start_detached(settings, lambda _: None)


def test_a_second_start_that_was_slower_says_so_and_takes_nothing_for_its_own(settings: StackSettings):
    [port] = free_ports(1)
    with Running(settings, stand_in(settings, "one", port)) as running:
        before = running.state
        with subprocess.Popen([sys.executable, "-c", ""]) as slower, pytest.raises(AlreadyRunningError):
            detached.wait_ready(settings, slower)
        assert running.state == before


def test_a_lock_that_is_held_leaves_the_other_ones_state_alone(settings: StackSettings):
    with exclusive(settings):
        settings.state_file.write_bytes(b"of the other")
        with pytest.raises(AlreadyRunningError):
            detached.start_detached(settings, lambda _: None)
    assert settings.state_file.read_bytes() == b"of the other"


def stack_environment(settings: StackSettings, kafka_jars: list[Path]) -> dict[str, str]:
    """The environment of a whole stack, on ports that are free and with jars that are there."""
    settings.jar_cache.parent.mkdir()
    settings.jar_cache.symlink_to(kafka_jars[0].parent)
    names = ("KAFKA", "KAFKA_CONTROLLER", "VALKEY", "AB_ROUTER", "FEATURE_SERVICE", "INFERENCE_SERVICE")
    ports = {f"CONTENDER_{name}_PORT": str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}
    return {**os.environ, **ports, "CONTENDER_HOME": str(settings.home)}


def test_ctrl_c_while_it_starts_in_the_background_leaves_no_process(settings: StackSettings, kafka_jars: list[Path]):
    command = [sys.executable, "-m", "contender.cli", "up", "-d"]
    environment = stack_environment(settings, kafka_jars)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as up:
        wait_for(lambda: read(settings.state_file) is not None)
        state = read(settings.state_file)
        assert state is not None
        assert not state.ready
        up.send_signal(signal.SIGINT)
        _, output = up.communicate(timeout=DEADLINE_S)
    assert (up.returncode, output) == (130, "Interrupted: nothing was left running.\n")
    assert not any(runs(process) for process in (state.supervisor, *state.processes))
    with exclusive(settings):
        pass


def test_ctrl_c_while_kafka_prepares_its_folder_is_no_failure(settings: StackSettings, kafka_jars: list[Path]):
    environment = stack_environment(settings, kafka_jars)
    command = [sys.executable, "-m", "contender.cli", "up"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as up:
        wait_for((settings.data_folder / "kafka" / "server.properties").exists)
        os.killpg(up.pid, signal.SIGINT)
        _, output = up.communicate(timeout=DEADLINE_S)
    assert (up.returncode, output) == (0, "")
    with exclusive(settings):
        pass


def test_a_process_that_the_same_ctrl_c_ended_while_it_was_started_is_no_failure(settings: StackSettings):
    process, ports = stand_in(settings, "one", free_ports(1)[0])
    supervisor = Supervisor(settings, [[(process, ports)]])

    def start() -> None:
        supervisor.stop()
        raise DiedError("one", "could not format its data folder", process.log)

    process.start = start
    supervisor.run(lambda _: None, lambda: None)
    state = read(settings.state_file)
    assert state is not None
    assert state.failure == ""


def test_a_port_in_use_is_named_with_the_setting_that_moves_it(settings: StackSettings):
    [port] = free_ports(1)
    with subprocess.Popen([sys.executable, "-c", SERVE, str(port)]) as other:
        wait_for(lambda: not is_free(port))
        with pytest.raises(PortInUseError, match=rf"Port {port}.*CONTENDER_X_PORT"):
            Supervisor(settings, [[stand_in(settings, "one", port)]]).run(lambda _: None, lambda: None)
        process, ports = stand_in(settings, "two", free_ports(1)[0])
        also = NeededPort(port, "CONTENDER_ALSO_PORT")
        with pytest.raises(PortInUseError, match=rf"Port {port}.* two needs.*CONTENDER_ALSO_PORT"):
            Supervisor(settings, [[(process, [*ports, also])]]).run(lambda _: None, lambda: None)
        other.kill()


def test_a_process_that_ends_while_starting_stops_the_stack(settings: StackSettings):
    first, second = free_ports(2)
    dead, ports = stand_in(settings, "dead", second, "raise SystemExit(3)")
    dead.is_ready = lambda: False  # type: ignore[method-assign]
    alive = stand_in(settings, "alive", first)
    with pytest.raises(DiedError, match=r"dead ended with exit code 3 while starting: read .*dead\.log"):
        Supervisor(settings, [[alive, (dead, ports)]]).run(lambda _: None, lambda: None)
    assert not alive[0].alive
    state = read(settings.state_file)
    assert state is not None
    assert "dead.log" in state.failure


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path):
    settings = StackSettings(home=tmp_path, free_bytes=2**62)
    with pytest.raises(DiskFullError, match=r" has \d.* free and needs 4611\d* TB: free some space"):
        Supervisor(settings, []).run(lambda _: None, lambda: None)


@pytest.fixture
def lone_supervisor(settings: StackSettings) -> Iterator["subprocess.Popen[bytes]"]:
    [port] = free_ports(1)
    code = (
        "import sys; from pathlib import Path\n"
        "from embedded.process import ManagedProcess, get\n"
        "from embedded.settings import StackSettings\n"
        "from embedded.supervisor import Supervisor, stop_on_signals\n"
        "class Asked(ManagedProcess):\n"
        "    def is_live(self, timeout_s):\n"
        "        return get('127.0.0.1', self.port, '/', timeout_s)[0] != 0\n"
        f"settings = StackSettings(home=Path({str(settings.home)!r}), live_stall_timeout_s={LIVE_S})\n"
        f"child = Asked('one', [sys.executable, '-c', {SERVE!r}, '{port}'], port={port},"
        " log=settings.logs / 'one.log')\n"
        "supervisor = Supervisor(settings, [[(child, [])]])\n"
        "stop_on_signals(supervisor)\n"
        "supervisor.run(lambda _: None, lambda: None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def test_a_killed_supervisor_takes_its_processes_along(
    settings: StackSettings, lone_supervisor: "subprocess.Popen[bytes]"
):
    wait_for(lambda: (state := read(settings.state_file)) is not None and state.ready)
    state = read(settings.state_file)
    assert state is not None
    lone_supervisor.kill()
    lone_supervisor.wait()
    wait_for(lambda: not runs(state.processes[0]))
    assert stack.running(settings) is None


def test_down_stops_and_purge_removes_the_data_alone(
    settings: StackSettings, lone_supervisor: "subprocess.Popen[bytes]"
):
    wait_for(lambda: (state := read(settings.state_file)) is not None and state.ready)
    settings.jar_cache.mkdir(parents=True)
    reaper = threading.Thread(target=lone_supervisor.wait)
    reaper.start()
    assert stack.stop(settings, purge=True)
    reaper.join(DEADLINE_S)
    assert not settings.data_folder.exists()
    assert settings.jar_cache.exists()
    assert not stack.stop(settings, purge=False)
    assert not psutil.pid_exists(lone_supervisor.pid)
