"""`contender features apply`, `retire`, `rebuild`, `consistency` and `status` against services that answer as told."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from contender.cli import app

VIEW = {"name": "speeds", "digest": "d1", "newest": False, "complete": True}
FILLED = {"views": [{**VIEW, "label": "speeds@1"}, {**VIEW, "label": "speeds@2"}]}
REPORT = {"feature": "speeds:count_1h", "compared": 9, "mismatch": 0.0, "missing": 0.0, "extra": 0.0}
REPORT |= {"error_mean": 0.0, "error_max": 0.0}
STATUS = {"label": "speeds@1", "complete": True, "newest_event_age_s": 1.5, "lag_s": 0.01}
STATUS |= {"objective_s": 1.0, "events_per_s": 2.5, "late": 3, "entities": 1234, "behind": False}


@dataclass
class Services:
    """One server in the place of both; answers by method and path, with a status where it is an error."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    services_asked = Services()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            services_asked.asked.append((f"{self.command} {self.path}", json.loads(body) if body else None))
            answer = services_asked.answers[f"{self.command} {self.path}"]
            status = answer.get("status", 200) if isinstance(answer, dict) else 200
            self.send_response(status if isinstance(status, int) else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = answer  # noqa: N815 - as the server calls them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        for service in ("FEATURE_SERVICE", "INFERENCE_SERVICE"):
            monkeypatch.setenv(f"CONTENDER_{service}_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("COLUMNS", "160")
        try:
            yield services_asked
        finally:
            server.shutdown()
            thread.join()


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["features", *arguments])
    assert result.exit_code == code, result.output
    assert code == 0 or isinstance(result.exception, SystemExit)
    return result.output


def test_what_has_changed_is_applied_and_filled(services: Services):
    services.answers = {"POST /v1/definitions/apply": {"added": ["speeds@2"]}, "GET /v1/definitions": FILLED}
    output = call("apply")
    assert "New versions: speeds@2." in output
    assert "All 2 versions are filled." in output


def test_what_is_not_filled_in_time_is_named(services: Services):
    filling = {"views": [{**VIEW, "label": "speeds@2", "complete": False}]}
    services.answers = {"POST /v1/definitions/apply": {"added": []}, "GET /v1/definitions": filling}
    output = call("apply", "--wait-s", "0", code=1)
    assert "No definition changed, so there is no new version." in output
    assert "Not filled after 0 s: speeds@2; the service goes on filling them." in output


def test_a_refusal_of_the_service_is_said_in_its_words(services: Services):
    problem = {"status": 422, "detail": "features.py:3: 'meen' is not defined"}
    services.answers = {"POST /v1/definitions/apply": problem}
    assert call("apply", code=1) == "features.py:3: 'meen' is not defined\n"


def test_a_rebuild_is_begun_and_waited_for(services: Services):
    services.answers = {"POST /v1/definitions/rebuild": {"generation": 3}, "GET /v1/definitions": FILLED}
    assert "Rebuild number 3 has begun." in call("rebuild")


def model(version: str, source: str) -> dict[str, Any]:
    inputs = [{"name": "a", "dtype": "float", "source": source}]
    return {"model": "late", "version": version, "task": "binary", "inputs": inputs, "registered_at": 0.0}


def test_versions_that_no_model_needs_are_retired(services: Services):
    services.answers = {
        "GET /v1/models": {"versions": [model("v1", "request"), model("v2", "speeds@2:count_1h")]},
        "POST /v1/definitions/retire": {"retired": ["speeds@1"]},
    }
    assert "Retired: speeds@1." in call("retire", "speeds@1")
    assert services.asked[-1] == ("POST /v1/definitions/retire", {"versions": ["speeds@1"]})


def test_a_version_that_a_model_is_trained_on_is_retired_by_force_only(services: Services):
    services.answers = {
        "GET /v1/models": {"versions": [model("v1", "speeds@1:count_1h")]},
        "POST /v1/definitions/retire": {"retired": ["speeds@1"]},
    }
    assert "late v1 was trained on speeds@1" in call("retire", "speeds@1", code=1)
    assert [what for what, _ in services.asked] == ["GET /v1/models"]
    assert "Retired: speeds@1." in call("retire", "speeds@1", "--force")


def test_a_check_without_differences_ends_well(services: Services):
    services.answers = {"POST /v1/consistency?sample=0.5": {"sample": 0.5, "features": [REPORT]}}
    assert "speeds:count_1h" in call("consistency", "--sample", "0.5")


@pytest.mark.parametrize("kind", ["mismatch", "missing", "extra"])
def test_a_check_that_finds_differences_ends_with_1(services: Services, kind: str):
    services.answers = {"POST /v1/consistency": {"sample": 0.1, "features": [{**REPORT, kind: 0.125}]}}
    assert "12.50%" in call("consistency", code=1)
    (report,) = json.loads(call("consistency", "--json", code=1))["features"]
    assert report[kind] == 0.125


def test_the_status_is_a_line_a_view_and_ends_with_1_where_one_is_behind(services: Services):
    answer = {"views": [STATUS], "workers": 2, "parked": 5, "waiting_s": 0.0, "unfilled": []}
    services.answers = {"GET /v1/features/status": answer}
    output = call("status")
    for part in ("speeds@1", "filled", "1.5 s ago", "10 ms", "1,234", "Parked: 5 events. Workers: 2."):
        assert part in output
    assert json.loads(call("status", "--json")) == answer
    services.answers = {"GET /v1/features/status": {**answer, "views": [{**STATUS, "behind": True}]}}
    call("status", code=1)
    services.answers = {"GET /v1/features/status": {**answer, "unfilled": ["no file [here]"]}}
    assert "Some features can't be filled: no file [here]" in call("status", code=1)


def test_the_status_without_a_worker_ends_with_1_and_says_so(services: Services):
    services.answers = {
        "GET /v1/features/status": {"views": [], "workers": 0, "parked": 0, "waiting_s": 0.0, "unfilled": []}
    }
    assert "No worker runs: events wait in Kafka until one does." in call("status", code=1)
    call("status", "--json", code=1)


def test_services_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONTENDER_FEATURE_SERVICE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("CONTENDER_INFERENCE_SERVICE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "160")
    assert "The feature service on http://127.0.0.1:1 does not answer" in call("status", code=1)
    assert "The inference service on http://127.0.0.1:1 does not answer" in call("retire", "speeds@1", code=1)
