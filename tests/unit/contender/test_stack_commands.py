"""`contender up`, `down`, `status`, `logs` and `demo` say in one sentence what is wrong."""

import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from contender.cli import app
from embedded.errors import PortInUseError
from embedded.folder import exclusive
from embedded.logs import FOLLOW_S
from embedded.service import SERVICES
from embedded.settings import StackSettings
from embedded.state import ProcessState, created, read, runs


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONTENDER_HOME", str(tmp_path))
    return tmp_path


def call(*arguments: str, code: int) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert code == 0 or isinstance(result.exception, SystemExit)
    return result


VERSION = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["version"]
COMMANDS = [["up"], ["up", "-d"], ["down"], ["status"], ["logs"], ["parked"], ["demo"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("variable", "value", "takes"),
    [
        ("CONTENDER_KAFKA_PORT", "abc", "a whole number from 1 to 65535: Port of the embedded Kafka."),
        ("CONTENDER_VALKEY_PORT", "65536", "a whole number from 1 to 65535: Port of the embedded Valkey."),
        ("CONTENDER_FREE_BYTES", "1.5", "a whole number from 0: Free bytes on the disk"),
        ("CONTENDER_LOG_FORMAT", "[/xml]", "one of json, console: How log lines are written."),
    ],
)
def test_a_variable_that_can_not_be_is_named_with_what_it_takes(monkeypatch, command, variable, value, takes):
    monkeypatch.setenv(variable, value)
    output = call(*command, code=1).output
    assert f"{variable} is '{value}', and takes {takes}" in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize("command", [["up"], ["up", "-d"], ["demo", "--flights", "1"]], ids=" ".join)
@pytest.mark.parametrize("place", ["a file", "/proc/contender"])
def test_a_home_that_can_not_be_written_is_said_first(home, monkeypatch, command, place):
    (home / "a file").touch()
    monkeypatch.setenv("CONTENDER_HOME", str(home / place))
    output = call(*command, code=1).output.splitlines()[-1]
    assert f"{home / place}/data can't be written (No" in output
    assert "set CONTENDER_HOME to another folder." in output


def test_nothing_runs_in_a_home_that_is_a_file(home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("CONTENDER_HOME", str(home / "file"))
    assert "Nothing is running" in call("status", code=1).output
    assert "Nothing was running" in call("down", code=0).output
    assert "There is no log" in call("logs", code=1).output


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x00" * 100, b'{"supervisor": 5}', b'{"supervisor": "\xff"}', b"[" * 9999]
)
def test_a_damaged_state_is_none(home, content):
    file = StackSettings(home=home).state_file
    file.parent.mkdir()
    file.write_bytes(content)
    assert read(file) is None
    assert "Nothing is running" in call("status", code=1).output
    assert "Nothing was running" in call("down", code=0).output


def test_a_state_that_can_not_be_read_is_said(home):
    StackSettings(home=home).state_file.mkdir(parents=True)
    for command in ("status", "down"):
        assert "stack.json can't be read (Is a directory)" in call(command, code=1).output


@pytest.mark.parametrize("content", [None, b"{", b'{"supervisor": {"name": "supervisor", "port": 0, "pid": 1}}'])
def test_data_stay_where_a_supervisor_runs_that_the_state_does_not_name(home, content):
    settings = StackSettings(home=home)
    with exclusive(settings):
        if content is not None:
            settings.state_file.write_bytes(content)
        for command in (["down"], ["down", "--purge", "--yes"]):
            output = call(*command, code=1).output
            assert "A supervisor holds the data folder" in output
            assert "try again in a moment" in output
        assert settings.data_folder.is_dir()
    assert "Removed" in call("down", "--purge", "--yes", code=0).output
    assert not settings.data_folder.exists()


def test_a_clock_that_was_corrected_hides_no_process():
    own = ProcessState("own", 0, os.getpid(), created(os.getpid()))
    assert runs(msgspec.structs.replace(own, created=own.created - 1.0))
    assert not runs(msgspec.structs.replace(own, created=own.created - 3600.0))


def test_logs_are_text(home):
    folder = StackSettings(home=home).logs
    folder.mkdir(parents=True)
    (folder / "[red].log").write_bytes(b"[/x] :smile: \x1b[32mgreen\x1b[0m\t\x1b[2J \x9b \xff\n")
    (folder / "b.log").write_bytes(b"plain\n")
    lines = call("logs", code=0).output.splitlines()
    assert " [red] " in lines[0]
    assert lines[1].split() == [
        "[/x]",
        ":smile:",
        "green",
        "\N{REPLACEMENT CHARACTER}[2J",
        *["\N{REPLACEMENT CHARACTER}"] * 2,
    ]
    assert "no log of [/x]; there are logs of: [red], b." in call("logs", "[/x]", code=1).output


def test_the_port_of_a_worker_is_told_as_the_web_port_and_ten():
    [worker] = [one for one in SERVICES if one.name == "feedback_worker"]
    output = str(PortInUseError(worker.name, worker.needed_port(StackSettings(feedback_service_port=9000))))
    assert output.startswith(
        "Port 9010, the web port plus 10, which feedback_worker needs, is in use: free it, or move"
    )
    assert output.endswith("CONTENDER_FEEDBACK_SERVICE_PORT=<another port>.")


@pytest.mark.parametrize("place", ["missing/report.json", "."])
def test_a_report_that_can_not_be_written_is_said_before_the_demo_starts(home, place):
    output = call("demo", "--json", str(home / place), code=1).output
    assert output.startswith(f"The demo has stopped: {home / place} can't be written: ")
    assert len(output.splitlines()) == 1
    assert not (home / "data").exists()


def test_the_version_is_told():
    assert call("--version", code=0).output == f"contender {VERSION}\n"


def test_data_are_not_removed_where_nobody_can_be_asked(home):
    data = StackSettings(home=home).data_folder
    (data / "ab_router").mkdir(parents=True)
    output = call("down", "--purge", code=2).output
    assert output == (
        f"--purge removes {data} for good, and there is no terminal to ask on: "
        "add --yes to remove it without being asked.\n"
    )
    assert (data / "ab_router").exists()
    assert call("down", "--purge", "--yes", code=0).output == f"Nothing was running.\nRemoved {data}.\n"
    assert not data.exists()


@pytest.mark.parametrize(("answer", "code", "stays"), [("n", 1, True), ("", 1, True), ("y", 0, False)])
def test_a_person_is_asked_before_data_are_removed(home, answer, code, stays):
    data = StackSettings(home=home).data_folder
    data.mkdir()
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "contender.cli", "down", "--purge"]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as down:
        os.write(master, f"{answer}\n".encode())
        output, _ = down.communicate(timeout=30)
    os.close(master)
    os.close(terminal)
    assert down.returncode == code, output
    assert b"for good?" in output
    assert data.exists() == stays


def test_the_last_lines_reach_into_the_older_part_of_a_log(home):
    log = StackSettings(home=home).logs / "kafka.log"
    log.parent.mkdir(parents=True)
    log.with_name("kafka.log.1").write_text("first\nsecond\n")
    log.write_text("third\n")
    assert call("logs", "kafka", "-n", "2", code=0).output == "second\nthird\n"
    assert call("logs", "kafka", "-n", "1", code=0).output == "third\n"


def test_a_log_that_begins_anew_is_followed_from_its_beginning(home):
    log = StackSettings(home=home).logs / "kafka.log"
    log.parent.mkdir(parents=True)
    log.write_text("old\n" * 100)
    command = [sys.executable, "-m", "contender.cli", "logs", "kafka", "--follow", "-n", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "old\n"
        log.write_text("new\n")
        assert following.stdout.readline() == "new\n"
        log.unlink()
        with pytest.raises(subprocess.TimeoutExpired):
            following.wait(3 * FOLLOW_S)
        log.write_text("another\n")
        assert following.stdout.readline() == "another\n"
        following.terminate()
