"""`contender experiment plan` against a service that answers as told."""

import json
import os

import pytest
from typer.testing import CliRunner

from contender.cli import app
from contender.contracts.feedback_service import PLAN_EXPERIMENT
from tests.unit.contender.test_remote_commands import Services
from tests.unit.contender.test_remote_commands import services as services  # noqa: PLC0414 - a fixture

ASKED = ("experiment", "plan", "--model", "churn", "--metric", "log_loss", "--effect", "0.01")


@pytest.fixture(autouse=True)
def feedback_service(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feedback service is the same server."""
    monkeypatch.setenv("CONTENDER_FEEDBACK_SERVICE_URL", os.environ["CONTENDER_FEATURE_SERVICE_URL"])


def test_a_plan_is_shown_in_sentences_and_a_table(services: Services):
    services.answers = {"POST /v1/plan": PLAN_EXPERIMENT.answer_example}
    result = CliRunner().invoke(app, [*ASKED, "--shares", "0.9,0.1"])
    assert result.exit_code == 0, result.output
    assert PLAN_EXPERIMENT.answer_example["sentences"][0] in result.output
    assert "18,300" in result.output
    (asked,) = services.asked
    assert asked[1]["shares"] == [0.9, 0.1]
    assert (asked[1]["metric"], asked[1]["effect"], asked[1]["cycle_days"]) == ("log_loss", 0.01, None)


def test_a_plan_is_printed_as_json(services: Services):
    services.answers = {"POST /v1/plan": PLAN_EXPERIMENT.answer_example}
    output = CliRunner().invoke(app, [*ASKED, "--json"]).output
    assert json.loads(output) == PLAN_EXPERIMENT.answer_example


def test_what_the_service_refuses_ends_with_1(services: Services):
    problem = {"type": "no-record", "title": "No record", "status": 404, "detail": "no experiment of model 'churn'"}
    services.answers = {"POST /v1/plan": problem}
    result = CliRunner().invoke(app, list(ASKED))
    assert result.exit_code == 1
    assert "no experiment of model 'churn'" in result.output


def test_shares_that_are_no_numbers_are_refused(services: Services):
    result = CliRunner().invoke(app, [*ASKED, "--shares", "half"])
    assert (result.exit_code, services.asked) == (1, [])
    assert "--shares half" in result.output
