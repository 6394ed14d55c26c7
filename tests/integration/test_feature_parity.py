"""Online and offline values are the same: any events, out of order and with ties, over the real store."""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import isclose
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

import httpx
import msgspec
import numpy as np
import polars as pl
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis, RedisCluster

from contender.features.catalogue import Catalogue
from contender.features.kinds import KINDS
from contender.features.offline import build_training_set
from embedded.kafka import KafkaBroker
from embedded.ports import free_ports
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from embedded.valkey import Valkey
from services.feature_service.definitions import definitions_for_tests
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.handlers import Merging
from services.feature_service.online import Question
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.store.redis import RedisStore
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.events import EntityEvent

DEFINITIONS = Path(__file__).with_name("parity_definitions.py")
CATALOGUE = Catalogue.load(str(DEFINITIONS))
SALES = CATALOGUE.sources["parity_sales"]
REFERENCES = [f"{view.name}:{feature.name}" for view in CATALOGUE.views.values() for feature in view.aggregations]
REFERENCES += [f"{view.name}:{name}" for view in CATALOGUE.on_demand.values() for name in view.features]
FEATURES = CATALOGUE.features(REFERENCES)
START = 1_700_000_000.0
DEADLINE_S = 60

moments = st.one_of(
    st.integers(0, 30).map(lambda tile: START + 20 * tile),
    st.integers(0, 2400).map(lambda quarter: START + quarter / 4),
    st.floats(START, START + 600, allow_nan=False),
)
sales = st.builds(
    lambda time, shop, clerk, items, price, member: EntityEvent(
        SALES.name, time, {"shop": shop, "clerk": clerk, "items": items, "price": price, "member": member}
    ),
    moments,
    st.sampled_from(["a", "b"]),
    st.integers(1, 3),
    st.integers(-(10**6), 10**6) | st.integers(0, 5),
    st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.1, -0.0, 1e6 + 0.1, 150.0]),
    st.booleans(),
)
rows = st.lists(
    st.tuples(
        moments,
        st.sampled_from(["a", "b", "never"]),
        st.integers(1, 3),
        st.floats(-10, 1e3) | st.none(),
        st.integers(0, 5) | st.integers(-(10**9), 10**9) | st.none(),
        st.sampled_from(["", "nan", "ready"]) | st.none(),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=120, deadline=None)
@given(events=st.lists(sales, max_size=60), asked=rows, order=st.randoms(use_true_random=False))
def test_merged_values_are_those_of_a_training_set(valkey: str, events, asked, order):
    assert_same(trained(events, asked), asyncio.run(merged(valkey, events, asked, order)), asked)


@settings(max_examples=25, deadline=None)
@given(events=st.lists(sales, max_size=60), asked=rows, order=st.randoms(use_true_random=False))
def test_served_values_are_those_of_a_training_set(service, events, asked, order):
    assert_same(trained(events, asked), asyncio.run(service.served(events, asked, order)), asked)


def assert_same(offline: dict[str, list[Any]], online: list[list[Any]], asked: Sequence[tuple[Any, ...]]) -> None:
    for number, row in enumerate(asked):
        for position, feature in enumerate(FEATURES):
            expected, actual = offline[feature.column][number], online[number][position]
            assert same(expected, actual), (row, feature.reference, expected, actual)


def test_every_aggregation_is_held_to_it():
    kinds = {feature.aggregation.kind for feature in FEATURES if feature.view.name in CATALOGUE.views}
    assert kinds == set(KINDS)


def same(expected: float | None, actual: Any) -> bool:
    """Whole numbers bit for bit; floats to 1e-9, or to 1e-13 of the largest value where they cancel out."""
    if isinstance(expected, float) and isinstance(actual, float):
        return isclose(expected, actual, rel_tol=1e-9, abs_tol=1e-7)
    return bool(expected == actual) and type(expected) is type(actual)


def trained(events: Sequence[EntityEvent], asked: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    kinds = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}
    schema = {"event_timestamp": pl.Float64, **{name: kinds[kind] for name, kind in SALES.schema.items()}}
    history = pl.DataFrame([{"event_timestamp": event.time, **event.values} for event in events], schema=schema)
    names = {"shop": pl.String, "clerk": pl.Int64, "budget": pl.Float64, "units": pl.Int64, "note": pl.String}
    table = pl.DataFrame(asked, schema={"time": pl.Float64, **names}, orient="row")
    return build_training_set(REFERENCES, table, {SALES.name: history}, catalogue=CATALOGUE).to_dict(as_series=False)


def arriving(events: Sequence[EntityEvent], asked, order: Random) -> Iterator[tuple[int, list[EntityEvent]]]:
    """Rows as of now: in the order of their times, each with the events that happened since the row before."""
    waiting = list(events)
    for number in sorted(range(len(asked)), key=lambda number: asked[number][0]):
        fresh = [event for event in waiting if event.time < asked[number][0]]
        waiting = [event for event in waiting if event.time >= asked[number][0]]
        order.shuffle(fresh)
        yield number, fresh


async def merged(url: str, events: Sequence[EntityEvent], asked, order: Random) -> list[list[Any]]:
    """Each row's values by the worker's merging, in this process, and what answers questions."""
    async with Redis.from_url(url.rsplit("/", 1)[0] + "/4") as client:
        await client.flushdb()
        store = RedisStore(client, seen_ttl_s=60)
        definitions = definitions_for_tests(CATALOGUE, store, InMemoryRegistry())
        merging = Merging(definitions, store, PartitionOwnership(store), FixedClock(START + 10_000), 0.0)
        values: list[list[Any]] = [[] for _ in asked]
        offset = 0
        for number, fresh in arriving(events, asked, order):
            frames = frames_of(fresh, order, offset)
            offset += len(frames)
            if frames:
                assert not any((await merging.merge_into(frames, lambda *_: True)).late.values())
                await merging.merge_into(frames, lambda *_: True)
            row = asked[number]
            question = Question(definitions.current, FEATURES, question_of(row), np.array(row[:1]), 1)
            values[number] = [column.values[0] for column in await question.answer(store)]
        return values


def question_of(row: tuple[Any, ...]) -> dict[str, list[Any]]:
    _, shop, clerk, budget, units, note = row
    return {"shop": [shop], "clerk": [clerk], "budget": [budget], "units": [units], "note": [note]}


@dataclass
class FeatureProcesses:
    """The service as its users meet it: a web process, Kafka, a worker, and a server or a cluster of Valkey."""

    url: str
    tiles: Callable[[], Redis | RedisCluster]

    async def served(self, events: Sequence[EntityEvent], asked, order: Random) -> list[list[Any]]:
        """Each row's values over HTTP, once every event sent before has been applied."""
        async with self.tiles() as tiles, httpx.AsyncClient(base_url=self.url, timeout=DEADLINE_S) as client:
            async for held in tiles.scan_iter("f:*", count=1000):
                await tiles.delete(held)  # those of the history before
            values: list[list[Any]] = [[] for _ in asked]
            for number, fresh in arriving(events, asked, order):
                for frame_id in [frame for part in parts_of(fresh, order) for frame in await send(client, part, order)]:
                    answer = await client.get(f"/v1/frames/{frame_id}?wait_s=30")
                    assert answer.json()["applied"], answer.text
                values[number] = await ask(client, asked[number])
        return values


async def send(client: httpx.AsyncClient, events: Sequence[EntityEvent], order: Random) -> list[str]:
    """Send events, some of them once more; the ids of their frames."""
    body = msgspec.json.encode({"events": events, "request_id": secrets.token_hex(8)})
    headers = {"content-type": "application/json"}
    answers = [await client.post("/v1/events", content=body, headers=headers) for _ in range(order.randint(1, 2))]
    assert {answer.status_code for answer in answers} == {202}, answers[0].text
    return [frame_id for answer in answers for frame_id in answer.json()["frame_ids"]]


async def ask(client: httpx.AsyncClient, row: tuple[Any, ...]) -> list[Any]:
    question = {"features": REFERENCES, "entities": question_of(row), "event_timestamps": [row[0]]}
    answer = await client.post("/get-online-features", json={**question, "full_feature_names": True})
    assert answer.status_code == 200, answer.text
    names = answer.json()["metadata"]["feature_names"]
    columns = dict(zip(names, answer.json()["results"], strict=True))
    return [columns[feature.column]["values"][0] for feature in FEATURES]


@pytest.fixture(scope="module", params=["valkey", "valkey_cluster"])
def service(
    request: pytest.FixtureRequest, kafka_broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FeatureProcesses]:
    folder = tmp_path_factory.mktemp("parity")
    in_cluster = request.param == "valkey_cluster"
    own_port, port = free_ports(2)
    own = [] if in_cluster else [Valkey(folder / "valkey", own_port)]
    servers = own or request.getfixturevalue("valkey_cluster").servers
    first = servers[0]
    stack = StackSettings(home=folder, kafka_port=kafka_broker.port, valkey_port=first.port, feature_service_port=port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTENDER_FEATURES", str(DEFINITIONS))
        patch.setenv("CONTENDER_REDIS_CLUSTER", str(in_cluster))
        services = [Service(ServiceProcess("feature_service", role), stack) for role in ("web", "worker")]
    processes = [*own, *services]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.wait_ready(DEADLINE_S)
        set_fsync(servers, "always")  # a step of a history then takes milliseconds, not a second
        wait_complete(stack.url("feature_service"))
        read_earlier_frames(stack.url("feature_service"))
        client_class = RedisCluster if in_cluster else Redis
        yield FeatureProcesses(stack.url("feature_service"), partial(client_class.from_url, first.url))
        set_fsync(servers, "everysec")
    finally:
        for process in processes:
            process.kill()


def set_fsync(servers: Sequence[Valkey], value: str) -> None:
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", value)


def wait_complete(url: str) -> None:
    """Return once the worker feeds every ring: until then nothing is served."""
    until = monotonic() + DEADLINE_S
    while not all(view["complete"] for view in httpx.get(f"{url}/v1/definitions").json()["views"]):
        assert monotonic() < until, "some views are still being filled"
        sleep(0.05)


def read_earlier_frames(url: str) -> None:
    """Return once the worker has read what one that was killed left unacknowledged: it lies before these frames.

    A frame goes to any partition, and so many of them reach each.
    """
    values = {"shop": "a", "clerk": 1, "items": 1, "price": 1.0, "member": True}
    body = {"events": [{"source": SALES.name, "time": START, "values": values}]}
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        answers = [client.post("/v1/events", json=body).raise_for_status().json() for _ in range(40)]
        for frame_id in (frame for answer in answers for frame in answer["frame_ids"]):
            assert client.get(f"/v1/frames/{frame_id}?wait_s=30").json()["applied"]


def parts_of(events: Sequence[EntityEvent], order: Random) -> list[Sequence[EntityEvent]]:
    """Events in up to four parts, none of them empty."""
    cuts = sorted({0, len(events), *(order.randint(0, len(events)) for _ in range(3))})
    return [events[start:end] for start, end in pairwise(cuts)]


def frames_of(events: Sequence[EntityEvent], order: Random, offset: int) -> list[ReadFrame]:
    return [
        ReadFrame(FramePosition("", order.randint(0, 3), offset + number), part)
        for number, part in enumerate(parts_of(events, order))
    ]
