"""A data folder of the release before: the stack starts on it, and tells the same results.

`tests/data/release-0.1.0.tar.xz` is what `contender up` of commit 5629beb left behind after 300 predictions of an
experiment with a window of a second, in calls of 100, with outcomes for the first 90 of each, one of which was
corrected twice; then the experiment was stopped.
"""

import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack import Stack, stack_in, wait_for

RELEASE = Path(__file__).parents[1] / "data" / "release-0.1.0.tar.xz"


@pytest.fixture(scope="module")
def upgraded(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("home")
    with tarfile.open(RELEASE) as release:
        release.extractall(home / "data", filter="data")
    (home / "data").chmod(0o755)
    stack = stack_in(home, kafka_jars)
    # The folder's records have the age of the folder.
    stack.environment["CONTENDER_RETENTION_S"] = str(100 * 365 * 86_400)
    up = stack.run("up", "--detach")
    try:
        assert up.returncode == 0, up.stderr
        yield stack
    finally:
        stack.run("down")


def variants(stack: Stack) -> dict[str, dict]:
    results = httpx.get(f"{stack.settings.url('feedback_service')}/v1/experiments/old/results").json()
    return {variant["name"]: variant for variant in results["variants"]}


def test_results_are_those_of_the_release_before(upgraded: Stack):
    wait_for(lambda: sum(variant["labelled"] for variant in variants(upgraded).values()) == 270)
    by_name = variants(upgraded)
    assert {name: (variant["n"], variant["labelled"]) for name, variant in by_name.items()} == {
        "champion": (153, 137),
        "challenger": (147, 133),
    }
    assert sum(variant["corrections"] for variant in by_name.values()) == 2
    assert by_name["champion"]["live"]["log_loss"]["mean"] == pytest.approx(0.5040042129775086, rel=1e-9)
    wait_for(lambda: all(variant["matured"] == variant["n"] for variant in variants(upgraded).values()))


def test_versions_of_the_release_before_answer(upgraded: Stack):
    with upgraded.client() as client:
        answer = client.predict("old", unit="u", inputs={"a": 1.0})
        assert answer.outputs.label == 1
        assert answer.outputs.score == pytest.approx(0.5, abs=0.5)


def test_nobody_else_may_read_the_folder(upgraded: Stack):
    assert stat.S_IMODE((upgraded.home / "data").stat().st_mode) == 0o700
