"""Logs are bounded while their processes write on, and the supervisor's lines never fail."""

from pathlib import Path

import pytest

from embedded.log_files import SupervisorLog, bound_logs, drop_older


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "kafka.log"


def test_a_log_of_half_its_limit_becomes_the_older_part_and_goes_on_at_its_beginning(log: Path):
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 600)
        bound_logs(log.parent, 1000)
        writer.write(b"b" * 10)
        assert log.read_bytes() == b"b" * 10
        assert log.with_name("kafka.log.1").read_bytes() == b"a" * 600
        writer.write(b"b" * 500)
        bound_logs(log.parent, 1000)
        assert (log.stat().st_size, log.with_name("kafka.log.1").read_bytes()) == (0, b"b" * 510)


def test_a_log_below_half_its_limit_stays(log: Path):
    log.write_bytes(b"a" * 500)
    bound_logs(log.parent, 1000)
    assert [path.name for path in log.parent.iterdir()] == ["kafka.log"]


def test_a_log_whose_older_part_can_not_be_written_is_bounded_all_the_same(log: Path):
    log.write_bytes(b"a" * 600)
    log.with_name("kafka.log.1").symlink_to(log.parent / "missing" / "file")
    bound_logs(log.parent, 1000)
    assert log.read_bytes() == b""
    assert not log.with_name("kafka.log.1").is_symlink()


def test_older_parts_go_and_logs_stay(log: Path):
    for name in ("kafka.log", "kafka.log.1", "valkey.log.1"):
        (log.parent / name).write_bytes(b"a")
    drop_older(log.parent)
    assert [path.name for path in log.parent.iterdir()] == ["kafka.log"]


def test_lines_have_their_time_and_one_that_can_not_be_written_is_lost(tmp_path: Path):
    log = SupervisorLog(tmp_path / "logs" / "supervisor.log")
    log.write("lost: there is no such folder")
    (tmp_path / "logs").mkdir()
    log.write("kept")
    [line] = (tmp_path / "logs" / "supervisor.log").read_text().splitlines()
    assert line.endswith("+00:00 kept")
