"""The feature service over HTTP, with its stores in memory and a journal on disk."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from contender.features.catalogue import Catalogue
from contender.features.definitions import FeatureView
from contender.features.kinds import KINDS
from services.feature_service.api import State
from services.feature_service.definitions import definitions_for_tests
from services.feature_service.event_log import EventLog
from services.feature_service.frames import FramePosition, ReadFrame, decode_frame
from services.feature_service.handlers import Merging
from services.feature_service.health import WorkerHealth
from services.feature_service.main import create_app, state_of
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.settings import FeatureSettings
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.errors import Unavailable
from shared.events import EntityEvent
from shared.journal import Journal, Position
from shared.testing import client_for
from shared.topics import FRAME_BYTES

NOW = 1_700_000_000.0
DEPARTURE = {"carrier": "UA", "origin": "EWR", "tail_number": "N1", "dep_delay": 12.5}


def event(**changes: object) -> dict[str, object]:
    return {"source": "departures", "time": NOW - 60, "values": {**DEPARTURE, **changes}}


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    journal = Journal.open(tmp_path, limit_bytes=1024**2)
    store = MemoryStore()
    definitions = definitions_for_tests(Catalogue.load("examples.flights.features"), store, InMemoryRegistry())
    yield state_of(FeatureSettings(event_limit=10), definitions, store, journal, FixedClock(NOW))
    journal.close()


@pytest.fixture
async def client(state: State) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(state) as client:
        yield client


@asynccontextmanager
async def serving(state: State) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def resources() -> AsyncIterator[State]:
        yield state

    async with client_for(create_app(resources)) as client:
        yield client


async def merge_journal(state: State) -> None:
    """What the worker would do once Kafka had the journal."""
    merging = Merging(state["definitions"], state["store"], PartitionOwnership(state["store"]), state["clock"], 300.0)
    for offset, (record, _) in enumerate(state["intake"].journal.read(Position(0, 0), 1024**2)):
        position = FramePosition(dict(record.headers)["ce_id"].decode(), record.partition, offset)
        await merging.merge_into([ReadFrame(position, decode_frame(record.value))], lambda *_: True)
        token = await merging.ownership.acquire(position.partition)
        await merging.settle([(position, token)])


async def test_accepted_events_are_answered_as_features_once_their_frame_is_applied(client, state):
    answer = await client.post("/v1/events", json={"events": [event(), event(dep_delay=7.5, time=0)][:1]})
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    (frame_id,) = answer.json()["frame_ids"]
    assert (await client.get(f"/v1/frames/{frame_id}")).json() == {"frame_id": frame_id, "applied": False}
    await merge_journal(state)
    assert (await client.get(f"/v1/frames/{frame_id}?wait_s=5")).json()["applied"] is True
    question = {
        "features": ["origin_delays:mean_dep_delay_1h", "origin_delays:count_1h"],
        "entities": {"origin": ["EWR", "JFK"]},
    }
    response = (await client.post("/get-online-features", json=question)).json()
    assert response["metadata"]["feature_names"] == ["origin", "mean_dep_delay_1h", "count_1h"]
    assert [result["values"] for result in response["results"]] == [["EWR", "JFK"], [12.5, None], [1, 0]]
    assert [result["statuses"] for result in response["results"]][1:] == [
        ["PRESENT", "NOT_FOUND"],
        ["PRESENT", "PRESENT"],
    ]
    assert response["results"][1]["event_timestamps"] == ["2023-11-14T22:13:20Z"] * 2


async def test_windows_end_at_the_time_a_row_gives(client, state):
    await client.post("/v1/events", json={"events": [event()]})
    await merge_journal(state)
    question = {
        "features": ["origin_delays:mean_dep_delay_1h"],
        "entities": {"origin": ["EWR", "EWR"]},
        "event_timestamps": [NOW, NOW + 7200],
        "full_feature_names": True,
    }
    response = (await client.post("/get-online-features", json=question)).json()
    assert response["metadata"]["feature_names"][1] == "origin_delays__mean_dep_delay_1h"
    assert response["results"][1]["values"] == [12.5, None]
    assert response["results"][1]["statuses"] == ["PRESENT", "NULL_VALUE"]


async def test_no_rows_are_answered_with_none_for_every_kind_of_feature(state, trade: FeatureView):
    names = [feature.name for feature in trade.aggregations]
    assert {feature.kind for feature in trade.aggregations} == set(KINDS)
    state["definitions"] = definitions_for_tests(Catalogue.of([trade]), state["store"], InMemoryRegistry())
    async with serving(state) as client:
        for name in names:
            answer = await client.post(
                "/get-online-features", json={"features": [f"trade:{name}"], "entities": {"shop": []}}
            )
            assert answer.status_code == 200, name
            assert [(result["values"], result["statuses"]) for result in answer.json()["results"]] == [([], [])] * 2
        question = {"features": [f"trade:{name}" for name in names], "entities": {"shop": []}}
        assert len((await client.post("/get-online-features", json=question)).json()["results"]) == 1 + len(names)


async def test_a_feature_service_names_its_features(client):
    entities = {"origin": ["EWR"], "carrier": ["UA"], "tail_number": ["N1"]}
    question = {"feature_service": "streaming", "entities": entities, "full_feature_names": True}
    response = (await client.post("/get-online-features", json=question)).json()
    assert len(response["results"]) == 3 + 9


async def test_a_repeated_request_id_gives_the_same_frame(client):
    body = {"events": [event()], "request_id": "once"}
    first, second = [(await client.post("/v1/events", json=body)).json()["frame_ids"] for _ in range(2)]
    assert first == second
    other = {"events": [event(dep_delay=1)], "request_id": "once"}
    assert (await client.post("/v1/events", json=other)).json()["frame_ids"] != first


async def test_a_large_call_goes_in_several_frames_and_its_repetition_counts_once(state, tmp_path):
    roomy = Journal.open(tmp_path / "roomy", limit_bytes=64 * 1024**2)
    intake = dataclasses.replace(state["intake"], journal=roomy)
    alike = EntityEvent("departures", NOW - 60, {**DEPARTURE, "tail_number": "N" * 500})
    first = await intake.accept([alike] * 8000, "once")
    assert await intake.accept([alike] * 8000, "once") == first
    records = [record for record, _ in roomy.read(Position(0, 0), 10**8)]
    assert len(set(first)) == len(first) == len(records) / 2 > 3
    assert [record.event_id.decode() for record in records] == first * 2
    assert max(len(record.value) for record in records) <= FRAME_BYTES
    assert sum(len(decode_frame(record.value)) for record in records) == 16000
    roomy.close()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"source": "nowhere"}, "events[1].source"),
        ({"time": NOW + 301}, "events[1].time"),
        ({"time": -1}, "events[1].time"),
        ({"values": {**DEPARTURE, "dep_delay": "late"}}, "events[1].values.dep_delay"),
        ({"values": {**DEPARTURE, "dep_delay": None}}, "events[1].values.dep_delay"),
        ({"values": {**DEPARTURE, "dep_delay": True}}, "events[1].values.dep_delay"),
        ({"values": {**DEPARTURE, "dep_delay": 1e200}}, "events[1].values.dep_delay"),
        ({"values": {**DEPARTURE, "origin": ""}}, "events[1].values.origin"),
        ({"values": {"origin": "EWR"}}, "events[1].values.carrier"),
        ({"values": {**DEPARTURE, "extra": 1}}, "events[1].values.extra"),
    ],
)
async def test_a_call_with_one_bad_event_is_refused_whole_and_names_the_field(client, state, changed, field):
    answer = await client.post("/v1/events", json={"events": [event(), {**event(), **changed}]})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert state["intake"].journal.unsent_bytes == 0


async def test_more_events_than_a_call_may_carry_are_refused(client):
    assert (await client.post("/v1/events", json={"events": [event()] * 11})).status_code == 413


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({"features": ["nowhere:count_1h"], "entities": {}}, "features[0]"),
        ({"features": ["origin_delays:nothing"], "entities": {}}, "features[0]"),
        ({"feature_service": "nothing", "entities": {}}, "feature_service"),
        ({"entities": {}}, "features"),
        ({"features": ["origin_delays:count_1h"], "entities": {"carrier": ["UA"]}}, "entities.origin"),
        (
            {"features": ["origin_delays:count_1h"], "entities": {"origin": ["A"], "carrier": []}},
            "entities.carrier",
        ),
        (
            {"features": ["origin_delays:count_1h"], "entities": {"origin": ["A"]}, "event_timestamps": [1, 2]},
            "event_timestamps",
        ),
        (
            {
                "features": ["origin_delays:count_3h", "carrier_delays:count_3h"],
                "entities": {"origin": ["A"], "carrier": ["UA"]},
            },
            "features",
        ),
    ],
)
async def test_a_question_that_cannot_be_answered_names_the_field(client, question, field):
    answer = await client.post("/get-online-features", json=question)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_push_takes_the_rows_of_a_table(client, state):
    table = {name: [value] * 2 for name, value in DEPARTURE.items()}
    body = {"push_source_name": "departures", "df": {**table, "event_timestamp": [NOW - 5, "2023-11-14T22:13:00"]}}
    answer = await client.post("/push", json=body)
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 2
    (record,) = [record for record, _ in state["intake"].journal.read(Position(0, 0), 1024**2)]
    assert [event.time for event in decode_frame(record.value)] == [NOW - 5, NOW - 20]


async def test_a_push_without_times_is_refused(client):
    body = {"push_source_name": "departures", "df": {name: [value] for name, value in DEPARTURE.items()}}
    assert (await client.post("/push", json=body)).json()["errors"][0]["field"] == "df.event_timestamp"


async def test_definitions_are_listed(client):
    definitions = (await client.get("/v1/definitions")).json()
    assert {view["name"] for view in definitions["views"]} == {"origin_delays", "carrier_delays", "tail_delays"}
    assert definitions["sources"][0]["schema"]["dep_delay"] == "float"


async def test_without_a_worker_every_view_is_behind_and_the_page_says_why(client, state):
    status = (await client.get("/v1/features/status")).json()
    assert (status["workers"], status["waiting_s"], [view["behind"] for view in status["views"]]) == (
        0,
        0.0,
        [True] * 3,
    )
    assert "No worker runs" in (await client.get("/")).text
    await state["store"].write_health("one", msgspec.json.encode(WorkerHealth(NOW, waiting_s=0.25)), NOW)
    status = (await client.get("/v1/features/status")).json()
    assert (status["workers"], status["waiting_s"], [view["behind"] for view in status["views"]]) == (
        1,
        0.25,
        [False] * 3,
    )
    assert "No worker runs" not in (await client.get("/")).text
    for worker in ("one", "two"):
        await state["store"].write_health(
            worker, msgspec.json.encode(WorkerHealth(NOW, unfilled=["no file <here>"])), NOW
        )
    assert (await client.get("/v1/features/status")).json()["unfilled"] == ["no file <here>"]
    assert "can't be filled: no file &lt;here&gt;" in (await client.get("/")).text


async def test_entities_are_in_the_status_once_they_are_counted(client, state):
    await client.post("/v1/events", json={"events": [event(), event(origin="JFK")]})
    await merge_journal(state)
    (before, *_) = (await client.get("/v1/features/status")).json()["views"]
    assert before["entities"] is None
    await state["status"].count_entities()
    views = (await client.get("/v1/features/status")).json()["views"]
    assert {view["label"]: view["entities"] for view in views}["origin_delays@1"] == 2


async def test_a_check_is_refused_while_another_one_runs(client, state):
    begun, go_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def waiting() -> AsyncIterator[EventLog]:
        begun.set()
        await go_on.wait()
        raise Unavailable("the topic can't be read")
        yield

    state["consistency"].log = waiting
    first = asyncio.create_task(client.post("/v1/consistency"))
    await begun.wait()
    second = await client.post("/v1/consistency")
    assert (second.status_code, second.json()["type"]) == (409, "/problems/check-running")
    assert "another check of served values is running" in second.json()["detail"]
    go_on.set()
    assert (await first).status_code == 503
    assert (await client.post("/v1/consistency")).status_code == 503  # it has ended, however it ended


async def test_the_service_is_ready_when_its_store_answers(client):
    assert (await client.get("/readyz")).status_code == 200
