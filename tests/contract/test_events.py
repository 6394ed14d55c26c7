"""The events on the topics as bytes: each is held to its file in golden/, which readers of older releases can read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields

from contender.contracts.experiments import (
    Bandit,
    Canary,
    Evidence,
    ExperimentRevision,
    Guardrail,
    Namespace,
    TargetingRule,
    VariantAllocation,
)
from contender.contracts.feedback_service import Effect, Sequence, VerdictEvent
from shared import topics
from shared.events import (
    EntityEvent,
    EntityEventFrame,
    FeedbackFrame,
    FeedbackGiven,
    PredictionBlock,
    PredictionFrame,
    ShadowBlock,
    UnansweredBlock,
)
from shared.topics import Topic, cloud_event_headers

GOLDEN = Path(__file__).parent / "golden"
V1, V2 = "1" * 64, "2" * 64
# Every field differs from its default, so that every field is in the bytes.
EVIDENCE = Evidence(
    experiment="delays-2",
    number=1,
    challenger="challenger",
    status="challenger better",
    sentence="challenger is better than champion in log loss.",
    at=1357016400.5,
)
EXAMPLES: dict[str, msgspec.Struct] = {
    "entity-events": EntityEventFrame(
        [
            EntityEvent("departures", 1357016400.5, {"carrier": "UA", "delay": -3.5, "stops": 1, "late": False}),
            EntityEvent("departures", 1357016460.0, {"carrier": "Überair", "delay": None}),
        ]
    ),
    "predictions": PredictionFrame(
        [
            PredictionBlock(
                model="delays",
                version=V2,
                task="multiclass",
                classes=["on time", "late", 2, True],
                experiment="delays-2",
                revision=3,
                epoch=2,
                window_s=86400.0,
                missing="negative",
                early_s=0.5,
                clock="wall",
                time_zone="Europe/Berlin",
                log_loss_clip=0.001,
                label_range=(-60.0, 600.0),
                error_limit=120.0,
                metric="value",
                segments=["origin"],
                value="if(outcome == 'late', 1, 0)",
                variant="challenger",
                served_variant="champion",
                assignment_probability=0.25,
                unit=["u-1", "u-2"],
                time=[1357016400.5, 1357016401.0],
                score=[[0.5, 0.25, 0.125, 0.125], [0.0, 1.0, 0.0, 0.0]],
                label=["on time", 2],
                inputs={"distance": [1400, None], "carrier": ["UA", "B6"]},
                context={"origin": ["EWR", "JFK"]},
                statuses={"origin_delays:mean_dep_delay_1h": ["PRESENT", "NOT_FOUND"]},
                degraded=[False, True],
                latency_ms=[1.25, 2.5],
                label_probability=[1.0, 0.01],
                excluded_from="delays-3",
                exclusion="forced",
                request_id=["r-1", ""],
            )
        ],
        [
            UnansweredBlock(
                model="delays",
                experiment="delays-2",
                revision=3,
                epoch=2,
                window_s=86400.0,
                missing="negative",
                clock="wall",
                time_zone="Europe/Berlin",
                task="multiclass",
                variant="challenger",
                assignment_probability=0.25,
                unit=["u-3", "u-4"],
                time=[1357016402.0, 1357016403.5],
                reason=["refused", "failed"],
            )
        ],
        [
            ShadowBlock(
                frame_id="018f0000-frame",
                experiment="delays-2",
                epoch=2,
                champion="champion",
                variant="challenger",
                version=V2,
                row=[0, 2],
                score=[[0.5, 0.25, 0.125, 0.125], [0.0, 1.0, 0.0, 0.0]],
                label=["on time", "late"],
            )
        ],
    ),
    "feedback": FeedbackFrame(
        [
            FeedbackGiven("018f0000-frame", 0, outcome=True, given_at=1357020000.0, source="user", kind="conversion"),
            FeedbackGiven("018f0000-frame", 1, outcome=4, given_at=1357020001.5, source="labels", kind="rating"),
            FeedbackGiven("018f0000-frame", 2, outcome=12.5, given_at=1357020002.0, source="labels", kind="reward"),
        ]
    ),
    "experiments": ExperimentRevision(
        name="delays-2",
        model="delays",
        revision=3,
        epoch=2,
        status="stopped",
        seed="9f86d081884c7d65",
        champion=V1,
        variants=[
            VariantAllocation("champion", V1, 0.75, "champion"),
            VariantAllocation("challenger", V2, 0.25, "champion"),
        ],
        metric="log_loss",
        hypothesis="non-inferiority",
        margin=0.001,
        guardrails=[Guardrail("accuracy", 0.01, "origin"), Guardrail("brier", 0.002, "carrier")],
        window_s=86400.0,
        missing="negative",
        early_s=0.5,
        clock="event",
        time_zone="Europe/Berlin",
        cycle_days=0,
        cycle_reason="a replay in shuffled order",
        alpha=0.01,
        tuning_n=10000,
        horizon_rows=20000,
        log_loss_clip=0.001,
        label_range=(-60.0, 600.0),
        error_limit=120.0,
        outcome="independent of the answer",
        shadow_share=0.5,
        labels_seen_if="score < 0.3",
        exploration_share=0.01,
        segments=["origin", "carrier"],
        correction="holm",
        value="if(outcome == 'late', 1, 0)",
        auto_stop=False,
        shadow=True,
        canary=Canary([0.05, 0.5], 500, 7200.0),
        bandit=Bandit(0.1, 200, 1800.0),
        coverage=0.5,
        fallback_value=0.5,
        namespace=Namespace("pricing", 0.25, 0.75),
        targeting=[TargetingRule("age", "adult", ["teen"], 18.0, 99.0, "a.*", 50.0)],
        forced={"tester-1": "challenger"},
        holdout=0.05,
        unit_missing="champion",
        owner="ann",
        changed_at=1357016400.5,
        started_at=1357016000.0,
        stopped_at=1357016400.5,
        sticky=True,
        was_partial=True,
        step=1,
        model_champion=V1,
        verdicts={"challenger": EVIDENCE},
        changed_by="ann",
        reason="enough seen",
        evidence=EVIDENCE,
        override="the review agreed",
        restart_of="delays-1",
    ),
    "verdicts": VerdictEvent(
        experiment="delays-2",
        number=2,
        kind="contradicted",
        challenger="challenger",
        status="challenger better",
        sentence="challenger was better than champion in log loss; later looks contradict that.",
        at=1357016400.5,
        model="delays",
        metric="log_loss",
        revision=3,
        effect=Effect(
            estimate=-0.06,
            low=-0.1,
            high=-0.02,
            p=0.0004,
            n=7800,
            better=True,
            lower_is_better=True,
            days=Sequence(-0.11, -0.01, 0.02, 7),
            decides=True,
            estimator="paired",
            corrected=True,
        ),
        whole_days=7,
        offsets={"predictions": {"0": 410}, "feedback": {"0": 377}},
    ),
}
each_topic = pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.name)


def golden(topic: Topic[Any]) -> bytes:
    return (GOLDEN / f"{topic.name}.json").read_bytes()


def structs(value: object) -> Iterator[msgspec.Struct]:
    """The event and every event within it."""
    if isinstance(value, msgspec.Struct):
        yield value
        for field in fields(value):
            yield from structs(getattr(value, field.name))
    elif isinstance(value, list):
        for item in value:
            yield from structs(item)


def changed(document: object, change: Callable[[dict[str, Any]], dict[str, Any]], like: object) -> object:
    """The document with `change` made to every object that is a struct in `like`."""
    if isinstance(like, list) and isinstance(document, list):
        return [changed(item, change, other) for item, other in zip(document, like, strict=True)]
    if not isinstance(like, msgspec.Struct) or not isinstance(document, dict):
        return document
    return change({name: changed(value, change, getattr(like, name)) for name, value in document.items()})


def test_every_topic_has_an_example_and_a_golden_file():
    names = sorted(topic.name for topic in topics.ALL)
    assert names == sorted(EXAMPLES)
    assert names == sorted(path.stem for path in GOLDEN.iterdir())


@each_topic
def test_the_example_sets_every_field(topic: Topic[Any]):
    for struct in structs(EXAMPLES[topic.name]):
        unset = [field.name for field in fields(struct) if getattr(struct, field.name) == defaults(field)]
        assert unset == [], type(struct).__name__


@each_topic
def test_an_event_is_encoded_as_the_golden_file_says(topic: Topic[Any]):
    assert msgspec.json.format(topic.encode(EXAMPLES[topic.name]), indent=2) + b"\n" == golden(topic)


@each_topic
def test_the_golden_file_decodes_to_an_equal_event(topic: Topic[Any]):
    assert topic.decode(golden(topic)) == EXAMPLES[topic.name]


@each_topic
def test_fields_that_a_newer_writer_adds_at_any_level_are_ignored(topic: Topic[Any]):
    example = EXAMPLES[topic.name]
    newer = changed(json.loads(golden(topic)), lambda struct: {**struct, "of_tomorrow": {"a": [1]}}, example)
    assert str(newer).count("of_tomorrow") == len(list(structs(example)))
    assert topic.decode(msgspec.json.encode(newer)) == example


@each_topic
def test_an_event_without_its_optional_fields_is_read_with_their_defaults(topic: Topic[Any]):
    example = EXAMPLES[topic.name]
    optional = {field.name for struct in structs(example) for field in fields(struct) if not field.required}
    older = changed(
        json.loads(golden(topic)),
        lambda struct: {name: value for name, value in struct.items() if name not in optional},
        example,
    )
    for struct in structs(topic.decode(msgspec.json.encode(older))):
        for field in fields(struct):
            assert field.required or getattr(struct, field.name) == defaults(field)


@each_topic
def test_bytes_of_another_shape_are_refused(topic: Topic[Any]):
    for value in (b"", b"{", b"[]", b"null", b'{"events": 1, "blocks": 1}'):
        with pytest.raises(msgspec.DecodeError):
            topic.decode(value)


@pytest.mark.parametrize(
    ("topic", "type_name", "writer"),
    [
        (topics.ENTITY_EVENTS, "contender.entity-events.frame.v1", "feature_service"),
        (topics.PREDICTIONS, "contender.predictions.frame.v1", "ab_router"),
        (topics.FEEDBACK, "contender.feedback.frame.v1", "feedback_service"),
        (topics.EXPERIMENTS, "contender.experiments.revision.v1", "ab_router"),
        (topics.VERDICTS, "contender.verdicts.event.v1", "feedback_service"),
    ],
)
def test_a_record_has_the_headers_of_a_cloudevent_in_binary_mode(topic: Topic[Any], type_name: str, writer: str):
    headers = {
        "ce_specversion": b"1.0",
        "ce_type": type_name.encode(),
        "ce_source": f"contender/{writer}".encode(),
        "ce_id": b"018f0000-frame",
        "content-type": b"application/json",
    }
    assert sorted(cloud_event_headers(topic, "018f0000-frame")) == sorted(headers.items())
    timed = cloud_event_headers(topic, "018f0000-frame", "2013-01-01T05:00:00Z")
    assert sorted(timed) == sorted({**headers, "ce_time": b"2013-01-01T05:00:00Z"}.items())


def defaults(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
