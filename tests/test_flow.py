"""The whole story, as a user tells it to the command line: up, the demo, feedback of every kind, a crash, down."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from aiokafka import AIOKafkaProducer
from sklearn.linear_model import LogisticRegression

from contender import Client, RefusedError, UnreachableError
from contender.contracts.feedback_service import Interval, Results
from contender.contracts.metrics import LABELLED, metrics_of
from contender.contracts.tasks import BINARY
from embedded.ports import free_ports
from embedded.state import read, runs
from shared.ids import new_frame_id
from shared.topics import ENTITY_EVENTS, FEEDBACK, PREDICTIONS
from tests.stack import DEADLINE_S, Stack, stack_in, wait_for

README = Path(__file__).parents[1] / "README.md"
FLIGHTS = 1500


@pytest.fixture(scope="module")
def stack(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = stack_in(tmp_path_factory.mktemp("home"), kafka_jars)
    up = stack.run("up", "--detach")
    try:
        assert up.returncode == 0, up.stderr
        yield stack
    finally:
        stack.run("down")


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def churn(stack: Stack) -> str:
    """A model with two versions, and the name of an experiment that runs on them."""
    random = np.random.default_rng(3)
    rows = pd.DataFrame({"age": random.normal(40, 10, 300), "spend": random.normal(5, 2, 300)})
    stays = rows["age"] + 3 * rows["spend"] > 55
    with stack.client() as client:
        old = client.register("churn", LogisticRegression(C=1e-4).fit(rows, stays), rows, stays)
        new = client.register("churn", LogisticRegression().fit(rows, stays), rows, stays)
        assert old.version != new.version
        return client.experiment("churn", challenger=new, window_s=3600).start().name


def seen(client: Client, experiment: str, wanted: Callable[[Results], bool]) -> Results:
    wait_for(lambda: wanted(client.results(experiment)))
    return client.results(experiment)


def totals(client: Client) -> dict[str, int]:
    experiment = client.experiments()[-1].name
    answer = httpx.get(f"{client.feedback_url}/v1/experiments/{experiment}/results")
    return answer.json()["totals"]


def test_the_stack_says_that_it_is_ready(stack: Stack):
    status = stack.run("status")
    assert status.returncode == 0, status.stdout
    for name in (
        "kafka",
        "valkey",
        *(f"{service}_service" for service in ("inference", "feature", "feedback")),
        "ab_router",
    ):
        assert name in status.stdout
    assert "Uvicorn running" in stack.run("logs", "ab_router").stdout


@pytest.mark.timeout(200)
def test_the_demo_ends_with_figures_that_agree(stack: Stack, tmp_path: Path):
    ended = stack.run("demo", "--flights", str(FLIGHTS), "--json", str(tmp_path / "report.json"), timeout_s=180)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["features_different"] == 0
    assert report["features_compared"] > FLIGHTS
    assert 0.8 * FLIGHTS < report["flights"] <= FLIGHTS  # whole days
    assert report["predictions"] == report["flights"]
    assert [variant["name"] for variant in report["variants"]] == ["v1", "v3"]
    assert sum(variant["n"] for variant in report["variants"]) == report["flights"]
    assert sum(variant["labelled"] for variant in report["variants"]) == report["feedback"]
    assert report["effect"]["low"] < report["effect"]["estimate"] < report["effect"]["high"]
    assert report["verdict"] in ended.stdout
    assert stack.settings.url("feedback_service") in ended.stdout


def test_ctrl_c_ends_the_demo_and_says_that_the_stack_stays_up(stack: Stack, tmp_path: Path):
    report = tmp_path / "report.json"
    with stack.start("demo", "--json", str(report)) as demo:
        wait_for(report.exists)  # it is opened before any work
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 130
    assert output.splitlines()[-1] == ("The demo was interrupted, and the stack stays up: `contender down` stops it.")
    assert stack.run("status").returncode == 0


def test_the_code_of_the_readme_runs_and_goes_on_when_it_runs_again(stack: Stack, tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "readme.py").write_text(code)
    environment = {**stack.environment, "CONTENDER_URL": stack.settings.url("ab_router")}
    command = [sys.executable, str(tmp_path / "readme.py")]
    for _ in range(2):
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith("No verdict yet")
    with stack.client() as client:
        (name,) = [experiment.name for experiment in client.experiments() if experiment.model == "tumour"]
        results = seen(client, name, lambda results: sum(variant.labelled for variant in results.variants) == 2 * 269)
    champion, challenger = (variant.live["log_loss"].mean for variant in results.variants)
    assert challenger < champion


def test_every_kind_of_feedback_is_counted_for_what_it_is(client: Client, churn: str):
    rows = [{"unit": f"u-{number}", "inputs": {"age": 30.0 + number, "spend": 5.0}} for number in range(40)]
    answers = client.predict_batch("churn", rows)
    assert {answer.variant for answer in answers} == {"champion", "challenger"}
    before = totals(client)
    outcomes = [{"prediction_id": answer.prediction_id, "outcome": True, "time": time.time()} for answer in answers]
    client.feedback_batch(outcomes)
    client.feedback_batch(outcomes)
    client.feedback(answers[0].prediction_id, outcome="perhaps")
    client.feedback(f"{new_frame_id(time.time())}-0-0", outcome=True)
    changed = {"labelled": 40, "duplicates": 40, "refused": 1, "unmatched": 1}
    wait_for(lambda: {name: totals(client)[name] - before[name] for name in changed} == changed)
    results = client.results(churn)
    assert sum(variant.n for variant in results.variants) == 40
    assert sum(variant.labelled for variant in results.variants) == 40
    page = httpx.get(f"{client.feedback_url}/experiments/{churn}")
    assert (page.status_code, churn in page.text) == (200, True)


@pytest.mark.parametrize(
    ("row", "status", "field"),
    [
        ({"unit": "u", "inputs": {"age": 30.0}}, 422, "inputs.spend"),
        ({"unit": "u", "inputs": {"age": "thirty", "spend": 5.0}}, 422, "inputs.age"),
        ({"unit": "u" * 1001, "inputs": {"age": 30.0, "spend": 5.0}}, 422, "unit"),
    ],
)
def test_a_row_that_can_not_be_answered_is_refused_with_its_field(client: Client, churn: str, row, status, field):
    with pytest.raises(RefusedError) as refused:
        client.predict_batch("churn", [row])
    assert refused.value.status == status
    assert [error.field for error in refused.value.errors] == [f"rows[0].{field}"]


def test_what_is_wrong_is_said_and_leaves_no_trace(client: Client, churn: str):
    before = sum(variant.n for variant in client.results(churn).variants)
    for call, status in (
        (lambda: client.predict("nobody", unit="u", inputs={}), 404),
        (lambda: client.predict_batch("churn", [{"unit": "u"}] * 1001), 413),
        (lambda: client.feedback("no id", outcome=1), 422),
        (lambda: client.feedback(f"{new_frame_id(1.0)}-99-0", outcome=1), 422),
        (lambda: client.results("nobody"), 404),
        (lambda: client.change(churn, "start"), 409),
    ):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.status == status
    for content, kind, status in ((b'{"unit": NaN}', "application/json", 400), (b"{}", "text/plain", 415)):
        answer = httpx.post(f"{client.url}/v1/models/churn/predict", content=content, headers={"content-type": kind})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    client.predict("churn", unit="u", inputs={"age": 30.0, "spend": 5.0})
    seen(client, churn, lambda results: sum(variant.n for variant in results.variants) == before + 1)


async def test_bytes_that_are_no_frame_are_parked_and_listed(stack: Stack):
    bootstrap = f"127.0.0.1:{stack.settings.kafka_port}"
    topics = [PREDICTIONS.name, FEEDBACK.name, ENTITY_EVENTS.name]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for topic in topics:
            await producer.send_and_wait(topic, b"\xff no frame", partition=0)
    records: list[dict[str, Any]] = []

    def listed() -> bool:
        records[:] = [json.loads(line) for line in stack.run("parked", "--json").stdout.splitlines()]
        return {record["topic"] for record in records} == set(topics)

    wait_for(listed)
    assert all("no frame" in record["begins"] and record["reason"] for record in records)
    assert PREDICTIONS.name in stack.run("parked").stdout


def of_outcomes(results: Results) -> dict[str, dict[str, Interval]]:
    """The live figures that the new prediction, which has no outcome, does not change."""
    labelled = [metric.name for metric in metrics_of(BINARY, LABELLED)]
    return {
        variant.name: {name: variant.live[name] for name in labelled if name in variant.live}
        for variant in results.variants
    }


def test_a_process_that_dies_starts_again_and_the_numbers_are_the_same(stack: Stack, client: Client, churn: str):
    before = client.results(churn)
    dead = stack.process("feedback_worker")
    assert dead.pid is not None
    os.kill(dead.pid, signal.SIGKILL)
    wait_for(lambda: stack.process("feedback_worker").pid not in (None, dead.pid))
    client.predict("churn", unit="after the crash", inputs={"age": 30.0, "spend": 5.0})
    counted = sum(variant.n for variant in before.variants)
    after = seen(client, churn, lambda results: sum(variant.n for variant in results.variants) == counted + 1)
    assert of_outcomes(after) == of_outcomes(before)
    wait_for(lambda: stack.run("status").returncode == 0)


def test_a_second_up_is_refused_in_one_sentence(stack: Stack):
    second = stack.run("up", "--detach")
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert "contender down" in second.stderr
    assert "Traceback" not in second.stderr


def test_down_leaves_no_process_and_purge_no_data(stack: Stack, client: Client):
    state = stack.state
    processes = [state.supervisor, *state.processes]
    assert all(runs(process) for process in processes)
    assert stack.run("down", "--purge", "--yes").returncode == 0
    assert not any(runs(process) for process in processes)
    assert not stack.settings.data_folder.exists()
    assert (stack.home / "cache" / "jars").exists()
    with pytest.raises(UnreachableError):
        client.experiments()


def test_ctrl_c_leaves_no_process(stack: Stack):
    with stack.start("up") as up:
        wait_for(lambda: (state := read(stack.settings.state_file)) is not None and state.ready)
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) == len(stack.state.processes)
        up.send_signal(signal.SIGINT)
        output, _ = up.communicate(timeout=DEADLINE_S)
        assert up.returncode == 0
    assert "Contender is ready" in output
    assert not any(child.is_running() for child in children)


def test_without_jars_or_a_repository_up_says_what_to_do(stack: Stack, tmp_path: Path):
    [port] = free_ports(1)
    alone = Stack(
        tmp_path,
        {
            **stack.environment,
            "CONTENDER_HOME": str(tmp_path),
            "CONTENDER_MAVEN_REPOSITORY": f"http://127.0.0.1:{port}/maven2",
        },
    )
    up = alone.run("up")
    assert up.returncode == 1
    assert "could not be fetched" in up.stderr
    assert "CONTENDER_MAVEN_REPOSITORY" in up.stderr
    assert "Traceback" not in up.stderr
