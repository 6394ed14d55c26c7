"""Whatever is stopped or frozen behind the router, predictions go on: the first call pays for it, and no other does."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from contender import Client
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from embedded.process import ManagedProcess
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from embedded.valkey import Valkey
from shared.settings import SERVICE_NAMES
from tests.conftest import Postgres

DEADLINE_S = 60
CALLS = 200
PAUSE_S = 0.012
"""Between calls, so that they last for longer than a breaker rests, and trials are among them."""

FEATURES_S, INFERENCE_S, REQUEST_IDS_S = 1.5, 3.0, 0.25
SLACK_S = 0.7
"""A busy machine's; less than what a call would take that waits for a frozen process."""

FED, SAFE, PLAIN = "fed", "safe", "plain"
"""Models: one with features, one with a fallback value in an experiment, and one with neither."""


@dataclass
class Times:
    """Seconds that the first call took, and each of those that followed; and the answers of all."""

    first_s: float
    next_s: list[float] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)

    def check(self, first_s: float) -> None:
        assert self.first_s < first_s + SLACK_S
        assert max(self.next_s) < SLACK_S
        assert median(self.next_s) < SLACK_S / 5

    @property
    def statuses(self) -> set[int]:
        return {answer.status_code for answer in self.answers}

    def values(self, name: str) -> set[Any]:
        return {answer.json().get(name) for answer in self.answers}


class Installation:
    """A router with all that stands behind it, each a process of its own."""

    def __init__(self, home: Path, kafka_jars: list[Path]) -> None:
        kafka, controller, valkey, router, inference, features, sql = free_ports(7)
        self.settings = StackSettings(
            home=home,
            kafka_port=kafka,
            valkey_port=valkey,
            ab_router_port=router,
            inference_service_port=inference,
            feature_service_port=features,
        )
        # Not below pytest's own folder, which only its user may enter.
        self.sql_folder = Path(tempfile.mkdtemp(prefix="contender-postgres-", dir="/tmp"))
        self.sql = Postgres(self.sql_folder, sql)
        self.kafka = KafkaBroker(home / "kafka", kafka, controller, kafka_jars, heap="512m")
        self.valkey = Valkey(home / "valkey", valkey)
        self.features = Service(ServiceProcess("feature_service", "web"), self.settings)
        self.inference = Service(ServiceProcess("inference_service", "web"), self.settings)
        of_router = self.settings.model_copy(update={"database": self.sql.url})
        self.router = Service(ServiceProcess("ab_router", "web"), of_router)
        self.http = httpx.Client(base_url=self.settings.url("ab_router"), timeout=30)
        self._ids = count()

    @property
    def processes(self) -> list[ManagedProcess]:
        return [self.sql, self.kafka, self.valkey, self.features, self.inference, self.router]

    def predict(self, model: str) -> httpx.Response:
        number = next(self._ids)
        body = {
            "unit": f"u-{number}",
            "entities": {"origin": "EWR"},
            "inputs": {"distance": 700.0},
            "request_id": f"r-{number}",
        }
        return self.http.post(f"/v1/models/{model}/predict", json=body)

    def times(self, model: str, calls: int = CALLS) -> Times:
        times = Times(0.0)
        for number in range(1 + calls):
            began = time.perf_counter()
            times.answers.append(self.predict(model))
            took = time.perf_counter() - began
            if number:
                times.next_s.append(took)
                time.sleep(PAUSE_S)
            else:
                times.first_s = took
        return times

    def is_well(self) -> bool:
        """Whether nothing is degraded, as far as callers see."""
        answers = [self.predict(model) for model in (FED, SAFE, PLAIN)]
        well = {"degraded": False, "deduplicated": True}
        return all(
            answer.status_code == httpx.codes.OK and well.items() <= {"deduplicated": True, **answer.json()}.items()
            for answer in answers
        )


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def installed(kafka_jars: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(tmp_path_factory.mktemp("outages"), kafka_jars)
    try:
        for process in installation.processes:
            process.start()
            if process is not installation.features:
                process.wait_ready(DEADLINE_S)
        installation.features.wait_ready(DEADLINE_S)
        declare(installation)
        yield installation
    finally:
        installation.http.close()
        for process in reversed(installation.processes):
            process.kill()
        shutil.rmtree(installation.sql_folder)


def declare(installation: Installation) -> None:
    urls = {service: installation.settings.url(service) for service in SERVICE_NAMES}
    rows = pd.DataFrame({"distance": np.arange(100.0), "busy": np.arange(100.0) / 4})
    late = rows["distance"] > 50
    with Client(urls=urls) as client:
        fed = LogisticRegression().fit(rows, late)
        client.register(FED, fed, rows, sources={"busy": "origin_delays:count_1h"}, defaults={"busy": 0.0})
        distance = rows[["distance"]]
        client.register(PLAIN, LogisticRegression().fit(distance, late), distance)
        arms = {
            name: client.register(SAFE, LogisticRegression(C=strength).fit(distance, late), distance)
            for name, strength in (("champion", 1.0), ("challenger", 0.01))
        }
    variants = [{"name": name, "version": arm.version, "weight": 0.5} for name, arm in arms.items()]
    new = {"name": "safe-1", "model": SAFE, "variants": variants, "fallback_value": 0.25, "window_s": 3600.0}
    assert installation.http.post("/v1/experiments", json=new).status_code == 201
    assert installation.http.post("/v1/experiments/safe-1/start", json={}).status_code == 200
    wait_for(installation.is_well)


@pytest.fixture
def well(installed: Installation) -> Iterator[Installation]:
    """An installation where everything works; whatever a test stops or freezes works again afterwards."""
    yield installed
    for process in installed.processes:
        if not process.alive:
            process.start()
            process.wait_ready(DEADLINE_S)
        process.resume()
    wait_for(lambda: all(installed.is_well() for _ in range(10)))  # each arm has been asked


STOPS = [ManagedProcess.kill, ManagedProcess.pause]


@pytest.mark.parametrize("stop", STOPS)
def test_without_the_feature_service_defaults_stand_in(well: Installation, stop):
    stop(well.features)
    times = well.times(FED)
    times.check(FEATURES_S)
    assert (times.statuses, times.values("degraded")) == ({200}, {True})


@pytest.mark.parametrize("stop", STOPS)
def test_without_valkey_features_have_defaults_and_calls_are_not_deduplicated(well: Installation, stop):
    stop(well.valkey)
    times = well.times(FED)
    times.check(FEATURES_S + 2 * REQUEST_IDS_S)
    assert (times.statuses, times.values("degraded"), times.values("deduplicated")) == ({200}, {True}, {False})
    times = well.times(PLAIN)
    times.check(0.0)
    assert (times.statuses, times.values("degraded"), times.values("deduplicated")) == ({200}, {False}, {False})


@pytest.mark.parametrize("stop", STOPS)
def test_without_the_inference_service_the_fallback_value_answers_or_nobody_does_at_once(well: Installation, stop):
    stop(well.inference)
    times = well.times(SAFE)
    # The first call of each arm waits for its version; the challenger's, for the champion's as well.
    slow = sorted([times.first_s, *times.next_s])
    assert slow[-1] < 2 * INFERENCE_S + SLACK_S
    assert slow[-3] < SLACK_S
    assert median(slow) < SLACK_S / 5
    assert (times.statuses, times.values("degraded")) == ({200}, {True})
    assert {answer.json()["outputs"]["score"] for answer in times.answers} == {0.25}
    times = well.times(PLAIN)
    times.check(INFERENCE_S)
    assert times.statuses == {503}
    assert {answer.headers["retry-after"] for answer in times.answers} == {"1"}


@pytest.mark.parametrize("stop", STOPS)
def test_without_kafka_the_journal_goes_on(well: Installation, stop):
    stop(well.kafka)
    times = well.times(FED)
    times.check(0.0)
    assert (times.statuses, times.values("degraded")) == ({200}, {False})


@pytest.mark.parametrize("stop", STOPS)
def test_without_sql_experiments_go_on(well: Installation, stop):
    (ManagedProcess.stop if stop is ManagedProcess.kill else stop)(well.sql)  # killed, it leaves its own children
    times = well.times(SAFE)
    times.check(0.0)
    assert (times.statuses, times.values("degraded"), times.values("experiment")) == ({200}, {False}, {"safe-1"})


@pytest.mark.parametrize(("stop", "is_inference_away"), [(ManagedProcess.kill, False), (ManagedProcess.pause, True)])
def test_the_router_starts_whatever_else_is_down(well: Installation, stop, *, is_inference_away: bool):
    for process in (well.kafka, well.valkey, well.features):
        stop(process)
    if is_inference_away:
        stop(well.inference)
    well.router.kill()
    began = time.monotonic()
    well.router.start()
    well.router.wait_ready(DEADLINE_S)
    assert time.monotonic() - began < 15
    times = well.times(SAFE, calls=20)
    assert (times.statuses, times.values("experiment")) == ({200}, {"safe-1"})
    assert times.values("degraded") == {is_inference_away}
    times = well.times(FED, calls=20)
    assert times.statuses == ({503} if is_inference_away else {200})


def test_a_call_that_a_killed_router_was_answering_is_answered_when_its_marker_has_expired(well: Installation):
    body = {"unit": "u", "inputs": {"distance": 1.0}, "request_id": "killed"}

    def post() -> httpx.Response:
        return well.http.post(f"/v1/models/{PLAIN}/predict", json=body, headers={"Deadline-Ms": "1000"})

    well.inference.pause()
    assert post().status_code == 503  # the call goes on without its caller
    in_flight = post()
    assert (in_flight.status_code, in_flight.headers["retry-after"]) == (409, "1")
    well.router.kill()
    well.inference.resume()
    well.router.start()
    well.router.wait_ready(DEADLINE_S)
    assert post().status_code == 409
    wait_for(lambda: post().status_code == 200)
    answer, again = post(), post()
    assert answer.headers["idempotency-replayed"] == "true"
    assert answer.content == again.content
