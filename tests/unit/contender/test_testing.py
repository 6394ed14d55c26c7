"""Applications test against a Contender that needs no services."""

import msgspec
import pytest

from contender import Client, RefusedError
from contender.client import Experiment
from contender.contracts.ab_router import Outputs
from contender.contracts.feedback_service import GET_RESULTS, LIST_VERDICTS, Results, VerdictEvents
from contender.testing import FakeContender


def test_it_answers_predictions_and_remembers_rows_and_outcomes():
    fake = FakeContender(answer=lambda row: Outputs(0.9 if row.inputs["plan"] == "pro" else 0.1, True))
    with Client(transport=fake.transport) as client:
        answer = client.predict("my churn", unit="u-1", entities={"customer": 17}, inputs={"plan": "pro"}, time=5.0)
        batch = client.predict_batch("churn", [{"unit": "u-2", "inputs": {"plan": "free"}}])
        client.feedback(answer.prediction_id, outcome=True)
    assert (answer.model, answer.version, answer.outputs.score) == ("my churn", "fake", 0.9)
    assert [prediction.outputs.score for prediction in batch] == [0.1]
    assert [(row.unit, row.time) for row in fake.rows] == [("u-1", 5.0), ("u-2", None)]
    assert fake.outcomes == {answer.prediction_id: True}


def test_it_remembers_reports_that_are_no_outcomes():
    fake = FakeContender()
    with Client("http://contender.test", transport=fake.transport) as client:
        client.feedback("p-0", rating=4.5)
        client.feedback("p-0", complaint=True)
    assert (fake.outcomes, [report.rating for report in fake.reports[:1]], fake.reports[1].complaint) == (
        {},
        [4.5],
        True,
    )


def test_it_asks_to_explore_the_rows_that_a_test_names():
    fake = FakeContender(explore=lambda row: row.unit == "u-1")
    with Client(transport=fake.transport) as client:
        answers = [
            client.predict("churn", unit="u-1"),
            *client.predict_batch("churn", [{"unit": "u-1"}, {"unit": "u"}]),
        ]
    assert [answer.explore for answer in answers] == [True, True, False]


def test_it_answers_with_the_results_and_verdicts_that_it_was_given():
    results = msgspec.convert(GET_RESULTS.answer_example, Results)
    events = msgspec.convert(LIST_VERDICTS.answer_example, VerdictEvents).verdicts
    fake = FakeContender(results={"my churn": results}, verdicts={"my churn": events})
    with Client(transport=fake.transport) as client:
        test = Experiment(client, "my churn")
        assert test.results() == test.results(as_of=events[0].at) == results
        assert test.verdicts() == events
        with pytest.raises(RefusedError, match="FakeContender does not answer"):
            client.verdicts("another")


def test_it_refuses_invalid_rows_and_calls_that_it_does_not_know():
    with Client(transport=FakeContender().transport) as client:
        with pytest.raises(RefusedError, match="unit") as refusal:
            client.predict_batch("churn", [{"inputs": {}}])
        assert refusal.value.status == 422
        with pytest.raises(RefusedError, match="FakeContender does not answer GET /v1/experiments"):
            client.experiments()
