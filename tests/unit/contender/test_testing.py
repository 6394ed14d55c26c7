"""Applications test against a Contender that needs no services."""

import asyncio

import msgspec
import pytest

from contender import AsyncClient, Client, ContenderError, RefusedError, UnreachableError
from contender.assignment import bucket, choose, ranges
from contender.client import Experiment
from contender.contracts.ab_router import Outputs, Prediction
from contender.contracts.experiments import VariantAllocation
from contender.contracts.feedback_service import GET_RESULTS, LIST_VERDICTS, Results, VerdictEvents
from contender.contracts.inference_service import InputColumn
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
        with pytest.raises(RefusedError, match="nothing of experiment another") as refusal:
            client.verdicts("another")
        assert refusal.value.slug == "unknown-experiment"


def test_units_are_assigned_as_an_experiment_says():
    fake = FakeContender(answers={"v2": lambda _: Outputs(0.9, True)})
    arms = [VariantAllocation("old", "v1", 0.5), VariantAllocation("new", "v2", 0.5)]
    revision = fake.experiment("churn", variants=arms, name="churn-2", seed="a9c01f5be7d24c33", coverage=0.8)
    with Client(transport=fake.transport) as client:
        answers = [client.predict("churn", unit=f"u-{number}") for number in range(300)]
        assert client.predict("other", unit="u-1").reason == "no experiment"
        assert client.experiments() == [client.revision("churn-2")] == [revision]
    for number, answer in enumerate(answers):
        place = choose(bucket(revision.seed, f"u-{number}"), ranges(2, 0.8, [0.5, 0.5]))
        variant = revision.variants[place] if place >= 0 else None
        assert answer.variant == (variant and variant.name)
        assert answer.version == (variant.version if variant else "fake")
        assert answer.outputs.score == (0.9 if answer.version == "v2" else 0.5)
        assert answer.reason == ("split" if variant else "outside coverage")
        assert (answer.experiment, answer.probability) == (("churn-2", 0.4) if variant else (None, None))
    assert {answer.variant for answer in answers} == {"old", "new", None}


def test_a_unit_that_is_forced_gets_its_variant_and_counts_nowhere():
    fake = FakeContender()
    fake.experiment("churn", variants={"old": 0.5, "new": 0.5}, forced={"tester": "new"})
    with Client(transport=fake.transport) as client:
        answer = client.predict("churn", unit="tester")
    assert (answer.variant, answer.reason, answer.excluded, answer.probability) == ("new", "forced", True, None)


def test_a_paused_experiment_lets_the_champion_answer():
    fake = FakeContender(version="v1")
    fake.experiment("churn", variants={"old": 0.5, "new": 0.5}, status="paused")
    with Client(transport=fake.transport) as client:
        answer = client.predict("churn", unit="u")
    assert (answer.version, answer.variant, answer.reason) == ("v1", None, "paused")


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"variants": {"old": 0.5, "new": 0.6}}, "add up to 1.1"),
        ({"variants": {"old": 0.5, "new": 0.5}, "coverage": "all"}, "coverage"),
        ({"variants": {"old": 0.5, "new": 0.5}, "holdouts": 0.1}, "holdouts"),
    ],
)
def test_a_wrong_declaration_is_named_in_the_test_that_makes_it(declared, named):
    with pytest.raises(ContenderError, match=named):
        FakeContender().experiment("churn", **declared)


def test_a_row_without_a_unit_is_refused_where_an_experiment_assigns_by_unit():
    fake = FakeContender()
    with Client(transport=fake.transport) as client:
        assert client.predict_batch("churn", [{"inputs": {}}])[0].reason == "no experiment"
        fake.experiment("churn", variants={"old": 0.5, "new": 0.5})
        with pytest.raises(RefusedError, match="unit is missing, and experiment churn assigns") as refusal:
            client.predict("churn")
        assert (refusal.value.status, refusal.value.slug) == (422, "invalid-field")
        with pytest.raises(RefusedError) as refusal:
            client.predict_batch("churn", [{"inputs": {}}])
        assert [error.field for error in refusal.value.errors] == ["rows[0].unit"]
        fake.experiment("churn", variants={"old": 0.5, "new": 0.5}, unit_missing="champion")
        assert client.predict("churn").reason == "no unit"


def test_inputs_that_are_not_as_the_model_declares_them_are_refused_by_field():
    fake = FakeContender()
    fake.model("churn", {"age": "float", "plan": InputColumn("plan", "string", required=False)})
    with Client(transport=fake.transport) as client:
        client.predict("churn", unit="u", inputs={"age": 3.5})
        with pytest.raises(RefusedError) as refusal:
            client.predict("churn", unit="u", inputs={"plan": 7, "size": 1})
        fields = ["inputs.age", "inputs.plan", "inputs.size"]
        assert sorted(error.field for error in refusal.value.errors) == fields
        right, wrong = client.predict_batch("churn", [{"unit": "u", "inputs": {"age": 1}}, {"unit": "u", "inputs": {}}])
        assert isinstance(right, Prediction)
        assert (wrong.status, [error.field for error in wrong.errors]) == (422, ["inputs.age"])
    assert len(fake.rows) == 2


@pytest.mark.parametrize(
    ("row", "field"), [({"inputs": []}, "rows[0].inputs"), ({"unit": 7}, "rows[0].unit"), ({"units": "u"}, "units")]
)
def test_a_row_of_another_shape_is_refused_by_field(row, field):
    with Client(transport=FakeContender().transport) as client:
        with pytest.raises(RefusedError) as refusal:
            client.predict_batch("churn", [row])
        assert refusal.value.status == 422
        assert refusal.value.errors[0].field.endswith(field)


def test_a_model_that_is_not_declared_is_unknown():
    fake = FakeContender()
    fake.model("churn", {})
    fake.experiment("delay", variants={"old": 0.5, "new": 0.5})
    with Client(transport=fake.transport) as client:
        client.predict("churn", unit="u")
        client.predict("delay", unit="u")
        with pytest.raises(RefusedError) as refusal:
            client.predict("chrun", unit="u")
    assert (refusal.value.status, refusal.value.slug) == (404, "unknown-model")


def test_a_repeated_request_id_gets_the_same_answer_once():
    fake = FakeContender()
    with Client(transport=fake.transport) as client:
        first = client.predict("churn", unit="u", request_id="r-1")
        assert client.predict("churn", unit="u", request_id="r-1") == first
        assert client.predict("delay", unit="u", request_id="r-1") != first
        with pytest.raises(RefusedError) as refusal:
            client.predict("churn", unit="v", request_id="r-1")
        assert (refusal.value.status, refusal.value.slug) == (422, "request-id-reused")
        batch = client.predict_batch("churn", [{"unit": "u"}], request_id="r-2")
        assert client.predict_batch("churn", [{"unit": "u"}], request_id="r-2") == batch
    assert len(fake.rows) == 3


def test_a_request_id_that_is_too_long_or_that_of_a_row_in_a_batch_is_refused():
    with Client(transport=FakeContender().transport) as client:
        with pytest.raises(RefusedError) as refusal:
            client.predict("churn", unit="u", request_id="r" * 201)
        assert [error.field for error in refusal.value.errors] == ["request_id"]
        with pytest.raises(RefusedError) as refusal:
            client.predict_batch("churn", [{"unit": "u"}, {"unit": "v", "request_id": "r"}])
        assert [error.field for error in refusal.value.errors] == ["rows[1].request_id"]


def test_a_refused_call_leaves_its_request_id_free():
    fake = FakeContender()
    fake.experiment("churn", variants={"old": 0.5, "new": 0.5})
    with Client(transport=fake.transport) as client:
        with pytest.raises(RefusedError):
            client.predict("churn", request_id="r-1")
        assert client.predict("churn", unit="u", request_id="r-1").variant


def test_it_fails_for_as_many_calls_as_it_is_asked_to():
    fake = FakeContender()
    with Client(transport=fake.transport) as client:
        fake.overload()
        with pytest.raises(RefusedError) as refusal:
            client.predict("churn", unit="u")
        assert (refusal.value.status, refusal.value.slug, refusal.value.retry_after_s) == (503, "overloaded", 1)
        fake.outage(calls=2)
        for _ in range(2):
            with pytest.raises(UnreachableError):
                client.feedback("p-0", outcome=True)
        client.feedback("p-0", outcome=True)
    assert (len(fake.rows), fake.outcomes) == (0, {"p-0": True})


def test_a_client_that_repeats_calls_is_answered_once():
    fake = FakeContender()
    fake.outage()
    with Client(transport=fake.transport, retries=1) as client:
        client.predict("churn", unit="u")
    assert len(fake.rows) == 1


@pytest.mark.parametrize(
    ("report", "field"),
    [({}, "feedback[0].outcome"), ({"outcome": 1, "rating": 2.0}, "feedback[0].rating"), ({"mood": 1}, "mood")],
)
def test_a_report_without_one_value_is_refused_and_not_remembered(report, field):
    fake = FakeContender()
    with Client(transport=fake.transport) as client:
        with pytest.raises(RefusedError) as refusal:
            client.feedback_batch([{"prediction_id": "p", **report}])
        assert refusal.value.status == 422
        assert refusal.value.errors[0].field.endswith(field)
    assert fake.reports == []


async def test_coroutines_are_answered_too_one_by_one_and_batched():
    fake = FakeContender()
    fake.experiment("churn", variants={"old": 0.5, "new": 0.5})
    async with AsyncClient(transport=fake.transport) as client:
        single = await client.predict("churn", unit="u-1")
        await client.feedback(single.prediction_id, outcome=True)
        async with client.batching("churn") as churn:
            answers = await asyncio.gather(*(churn.predict(unit=f"u-{number}") for number in range(20)))
        assert [row.name for row in await client.experiments()] == ["churn"]
        assert (await client.revision("churn")).seed == "churn"
        fake.outage()
        with pytest.raises(UnreachableError):
            await client.predict("churn", unit="u-1")
    assert answers[1].variant == single.variant
    assert fake.outcomes == {single.prediction_id: True}


def test_it_says_so_where_a_call_is_none_of_an_application():
    with (
        Client(transport=FakeContender().transport) as client,
        pytest.raises(RefusedError, match="FakeContender does not answer POST /v1/experiments"),
    ):
        client.create({"name": "e"})
