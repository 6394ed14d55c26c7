"""What an application tracks with OpenFeature is feedback, and what can't be is never an error of its own."""

import logging

import pytest
from openfeature import api
from openfeature.track import TrackingEventDetails as Details

from contender import Client
from contender import openfeature as provider_module
from contender.testing import FakeContender


@pytest.fixture
def fake():
    return FakeContender()


@pytest.fixture
def provider(fake):
    client = Client("http://127.0.0.1:1", transport=fake.transport)
    provider = provider_module.ContenderProvider(client)
    yield provider
    provider.shutdown()
    client.close()


def sent(provider, fake) -> list[dict]:
    provider.shutdown()
    return [report.reports for report in fake.reports]


@pytest.mark.parametrize(
    ("kind", "details", "value"),
    [
        ("conversion", {}, True),
        ("conversion", {"value": 0.0}, False),
        ("complaint", {"value": 2.0}, True),
        ("rating", {"value": 4.5}, 4.5),
        ("reward", {"value": -1.0}, -1.0),
        ("outcome", {"value": 1.0}, 1.0),
        ("outcome", {"attributes": {"outcome": "leaves"}}, "leaves"),
        ("outcome", {"value": 1.0, "attributes": {"outcome": False}}, False),
    ],
)
def test_an_event_is_feedback_of_the_kind_that_it_is_named_after(provider, fake, kind, details, value):
    attributes = {"prediction_id": "p-0", "plan": "pro", **details.get("attributes", {})}
    provider.track(kind, None, Details(details.get("value"), attributes))
    assert sent(provider, fake) == [{kind: value}]
    assert (fake.reports[0].prediction_id, fake.reports[0].time) == ("p-0", None)
    assert type(fake.reports[0].reports[kind]) is type(value)


def test_an_event_may_have_a_time(provider, fake):
    provider.track("conversion", None, Details(attributes={"prediction_id": "p-0", "time": 5.0}))
    sent(provider, fake)
    assert fake.reports[0].time == 5.0


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (("conversion", None), "prediction_id is missing"),
        (("conversion", Details(1.0)), "prediction_id is missing"),
        (("purchase", Details(1.0, {"prediction_id": "p-0"})), "no kind of feedback: outcome, rating"),
        (("rating", Details(None, {"prediction_id": "p-0"})), "value is missing"),
        (("rating", Details(None, {"prediction_id": "p-0", "rating": "good"})), "rating"),
        (("outcome", Details(float("nan"), {"prediction_id": "p-0"})), "outcome is nan"),
        (("outcome", Details(1.0, {"prediction_id": 17})), "prediction_id"),
        (("outcome", Details(None, {"prediction_id": "p-0", "outcome": {"a": 1}})), "outcome"),
        (("conversion", Details(None, {"prediction_id": "p-0", "time": "noon"})), "time"),
    ],
)
def test_an_event_that_is_no_feedback_is_logged_once_and_dropped(provider, fake, caplog, event, named):
    kind, details = event
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            provider.track(kind, None, details)
    assert sent(provider, fake) == []
    (message,) = [record.getMessage() for record in caplog.records]
    assert named in message
    assert repr(kind) in message


def test_events_reach_the_feedback_service_through_openfeature(provider, fake):
    api.set_provider(provider)
    api.get_client().track("conversion", tracking_event_details=Details(attributes={"prediction_id": "p-0"}))
    api.clear_providers()
    assert sent(provider, fake) == [{"conversion": True}]
    assert provider.get_metadata().name == "Contender"


def test_a_service_that_is_away_is_no_error_of_the_application(provider, fake, caplog):
    fake.outage(calls=1000)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            provider.track("conversion", None, Details(attributes={"prediction_id": "p-0"}))
        assert sent(provider, fake) == []
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "feedback is lost until the service takes it again"
    ]
