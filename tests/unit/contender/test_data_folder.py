"""The data folder belongs to its user alone, and to a release that can read it."""

import json
import os
import stat
from pathlib import Path

import pytest

from embedded.errors import EmbeddedError, NewerDataError
from embedded.folder import FORMAT, exclusive, take_over
from embedded.settings import StackSettings
from embedded.state import ProcessState, StackState, describe_late, describe_start
from embedded.usage import usage_by_part


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return StackSettings(home=tmp_path / "home")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_its_users_alone(settings: StackSettings):
    with exclusive(settings):
        assert mode(settings.data_folder) == 0o700


def test_folders_and_files_of_an_older_release_are_taken_from_others(settings: StackSettings, tmp_path: Path):
    data = settings.data_folder
    (data / "ab_router" / "journal").mkdir(parents=True)
    segment = data / "ab_router" / "journal" / "000000000000.log"
    segment.write_bytes(b"units")
    for path, old in ((data, 0o755), (data / "ab_router", 0o777), (segment, 0o664)):
        path.chmod(old)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)  # whatever the umask is
    (data / "linked").symlink_to(elsewhere)
    (data / "dangling").symlink_to(tmp_path / "missing")
    take_over(data)
    assert [mode(path) for path in (data, data / "ab_router", segment.parent, segment)] == [0o700, 0o700, 0o700, 0o600]
    assert mode(elsewhere) == 0o755


def test_a_folder_of_a_later_release_is_refused_by_name(settings: StackSettings):
    with exclusive(settings):
        take_over(settings.data_folder)
    marker = settings.data_folder / "format.json"
    assert json.loads(marker.read_text())["format"] == FORMAT
    marker.write_text(json.dumps({"format": FORMAT + 1, "release": "9.1.0", "more": []}))
    with pytest.raises(NewerDataError, match=rf"Contender 9\.1\.0 has written .* in format {FORMAT + 1}.*install"):
        exclusive(settings).__enter__()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "x", "release": "1"}', "\x00"])
def test_a_marker_that_can_not_be_read_is_named(settings: StackSettings, content: str):
    settings.data_folder.mkdir(parents=True)
    (settings.data_folder / "format.json").write_text(content)
    with pytest.raises(EmbeddedError, match=r"format\.json can't be read"):
        exclusive(settings).__enter__()


def test_what_the_data_take_is_told_by_part_with_its_limit(settings: StackSettings):
    for name, size in (
        ("kafka/log/predictions-0/1.log", 50_000),
        ("ab_router/journal/1.log", 100_000),
        ("ab_router/store.db", 200_000),
        ("feedback_service/worker-8413/tables/frames", 400_000),
        ("logs/kafka.log", 800_000),
        ("logs/kafka.log.1", 1_600_000),
    ):
        path = settings.data_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    with (settings.data_folder / "kafka" / "sparse.index").open("wb") as sparse:
        sparse.truncate(10**9)
    sizes = {part.name: part.size_bytes for part in usage_by_part(settings)}
    expected = {"kafka": 5e4, "valkey": 0, "journals": 1e5, "tables": 4e5, "logs": 2.4e6, "models, databases": 2e5}
    assert sizes.keys() == expected.keys()
    assert all(expected[name] <= size <= expected[name] + 50_000 for name, size in sizes.items())
    limits = {part.name: part.limit for part in usage_by_part(settings)}
    assert (limits["journals"], limits["logs"]) == ("2.1 GB not yet in Kafka", "16 MB")


def test_a_start_says_what_it_waits_for_and_how_far_that_is():
    supervisor = ProcessState("supervisor", 0)
    kafka = ProcessState("kafka", 1, created=1.0)
    assert describe_start(StackState(supervisor)) == "starting"
    assert describe_start(StackState(supervisor, [kafka, ProcessState("later", 2)])) == "waiting for kafka"
    router = ProcessState("ab_router", 3, created=1.0, ready=True)
    worker = ProcessState("worker", 4, created=1.0, progress="7 recovered")
    dead = ProcessState("dead", 5, created=1.0, restarts=2, cause="ended with exit code 1")
    state = StackState(supervisor, [router, worker, dead])
    assert describe_start(state) == (
        "predictions are served; waiting for worker (7 recovered), dead (restart 2, it ended with exit code 1)"
    )
    assert [sentence.partition(":")[0] for sentence in describe_late(state)] == [
        "worker is not ready (it shows no progress)",
        "dead is not ready (it ended with exit code 1)",
    ]
