"""The supervisor with stand-in processes: what starts is watched, what dies starts again, what stops leaves nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from contender.embedded import stack
from contender.embedded.errors import AlreadyRunningError, DiedError, DiskFullError, PortInUseError
from contender.embedded.ports import NeededPort, free_ports, is_free
from contender.embedded.process import ManagedProcess
from contender.embedded.settings import StackSettings
from contender.embedded.state import StackState, read, runs
from contender.embedded.supervisor import Supervisor, exclusive

DEADLINE_S = 30
SERVE = "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), None).serve_forever()"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.05)


StandIn = tuple[ManagedProcess, list[NeededPort]]


def stand_in(settings: StackSettings, name: str, port: int, code: str = SERVE) -> StandIn:
    command = [sys.executable, "-c", code, str(port)]
    process = ManagedProcess(name, command, port=port, log=settings.logs / f"{name}.log")
    return process, [NeededPort(port, "CONTENDER_X_PORT")]


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return StackSettings(home=tmp_path)


class Running:
    """A supervisor in a thread of its own."""

    def __init__(self, settings: StackSettings, *processes: StandIn) -> None:
        self.settings = settings
        self.supervisor = Supervisor(settings, [processes])
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.supervisor.run, args=(lambda _: None, self.ready.set))

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


def test_a_process_that_keeps_dying_is_given_up_with_its_log(settings: StackSettings):
    [port] = free_ports(1)
    with Running(settings, stand_in(settings, "one", port, "import time; time.sleep(0.3)")) as running:
        wait_for(lambda: bool(running.state.processes[0].given_up))
        assert str(settings.logs / "one.log") in running.state.processes[0].given_up


def test_a_second_supervisor_on_the_same_data_is_refused(settings: StackSettings):
    first, second = free_ports(2)
    with Running(settings, stand_in(settings, "one", first)):
        other = Supervisor(settings, [[stand_in(settings, "two", second)]])
        with pytest.raises(AlreadyRunningError, match="contender down"):
            other.run(lambda _: None, lambda: None)
        with pytest.raises(AlreadyRunningError):
            stack.start_detached(settings, lambda _: None)


def test_a_second_start_that_was_slower_says_so_and_takes_nothing_for_its_own(settings: StackSettings):
    [port] = free_ports(1)
    with Running(settings, stand_in(settings, "one", port)) as running:
        before = running.state
        with subprocess.Popen([sys.executable, "-c", ""]) as slower, pytest.raises(AlreadyRunningError):
            stack._wait_ready(settings, slower)
        assert running.state == before


def test_a_lock_that_is_held_leaves_the_other_ones_state_alone(settings: StackSettings):
    with exclusive(settings):
        settings.state_file.write_bytes(b"of the other")
        with pytest.raises(AlreadyRunningError):
            stack.start_detached(settings, lambda _: None)
    assert settings.state_file.read_bytes() == b"of the other"


def test_ctrl_c_while_it_starts_in_the_background_leaves_no_process(settings: StackSettings, kafka_jars: list[Path]):
    settings.jar_cache.parent.mkdir()
    settings.jar_cache.symlink_to(kafka_jars[0].parent)
    names = ("KAFKA", "KAFKA_CONTROLLER", "VALKEY", "AB_ROUTER", "FEATURE_SERVICE", "INFERENCE_SERVICE")
    ports = {f"CONTENDER_{name}_PORT": str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}
    command = [sys.executable, "-m", "contender.cli", "up", "-d"]
    environment = {**os.environ, **ports, "CONTENDER_HOME": str(settings.home)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as up:
        wait_for(lambda: read(settings.state_file) is not None)
        state = read(settings.state_file)
        assert state is not None
        assert not state.ready
        up.send_signal(signal.SIGINT)
        _, said = up.communicate(timeout=DEADLINE_S)
    assert (up.returncode, said) == (130, "Interrupted: nothing was left running.\n")
    assert not any(runs(process) for process in (state.supervisor, *state.processes))
    with exclusive(settings):
        pass


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
    with pytest.raises(DiskFullError, match="free some space"):
        Supervisor(settings, []).run(lambda _: None, lambda: None)


@pytest.fixture
def lone_supervisor(settings: StackSettings) -> Iterator["subprocess.Popen[bytes]"]:
    [port] = free_ports(1)
    code = (
        "import sys; from pathlib import Path\n"
        "from contender.embedded.process import ManagedProcess\n"
        "from contender.embedded.settings import StackSettings\n"
        "from contender.embedded.supervisor import Supervisor, stop_on_signals\n"
        f"settings = StackSettings(home=Path({str(settings.home)!r}))\n"
        f"child = ManagedProcess('one', [sys.executable, '-c', {SERVE!r}, '{port}'], port={port},"
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
