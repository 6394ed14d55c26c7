"""Online and offline values are the same: any events, out of order and with ties, over the real store."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from math import isclose
from random import Random
from typing import Any, get_args

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from services.feature_service.definitions import fixed
from services.feature_service.handlers import Feeds, Merging, ReadFrame
from services.feature_service.online import Question
from services.feature_service.store.protocol import FramePosition
from services.feature_service.store.redis import RedisStore
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.events import EntityEvent
from shared.features import aggregations as of
from shared.features.catalogue import Catalogue
from shared.features.conditions import column
from shared.features.definitions import Entity, EventSource, FeatureView
from shared.features.offline import build_training_set
from shared.features.on_demand import on_demand

START = 1_700_000_000.0
SUMMED = (of.sum, of.mean, of.min, of.max, of.std, of.first, of.last)
SHOP = Entity("shop", "shop")
CLERK = Entity("clerk", "clerk")
SALES = EventSource("sales", {"shop": str, "clerk": int, "items": int, "price": float, "member": bool})
DEAR = column("price") > 100.0
VIEWS = [
    FeatureView(
        "minutes",
        SHOP,
        SALES,
        [
            *(make(name, "1m", "all") for make in SUMMED for name in ("items", "price")),
            *(make("price", "3m") for make in SUMMED),
            of.count("1m", "3m", "all"),
            of.last_n("items", 3, "1m", "3m", "all"),
            of.distinct_count("items", "3m", "all", exact_to=16),
            of.distinct_count("clerk", "1m"),
            of.quantile("price", 0.9, "1m", "3m", "all"),
            of.quantile("items", 0.5, "3m"),
            of.count("3m", where=DEAR, name="dear_3m"),
            of.mean("items", "3m", where=DEAR & (column("member") == True), name="dear_items_3m"),  # noqa: E712
            of.ratio(of.sum("price", "1m", "3m"), of.sum("items", "1m", "3m"), name="unit_price"),
            of.ratio(of.count("3m", where=DEAR), of.count("3m"), name="dear_share"),
        ],
        hop="20s",
        lateness="10m",
    ),
    FeatureView("visits", SHOP, SALES, [of.count("90s"), of.count("30s")], hop="30s", lateness="10m"),
    FeatureView(
        "pairs", [SHOP, CLERK], SALES, [of.sum("items", "1m"), of.count("all")], hop="20s", where=~DEAR, lateness="10m"
    ),
    FeatureView(
        "whole", None, SALES, [of.count("2m"), of.last("price", "2m", "all")], hop="20s", max_age="40s", lateness="10m"
    ),
]


@on_demand(
    request={"budget": float},
    inputs=["minutes:mean_price_3m", "minutes:count_3m"],
    features={"affordable": float, "many": bool},
)
def budget(budget, price, count):
    """What a budget buys at the recent price."""
    return {"affordable": budget / price, "many": count > 3}


CATALOGUE = Catalogue.of([*VIEWS, budget])
REFERENCES = [f"{view.name}:{feature.name}" for view in VIEWS for feature in view.aggregations]
REFERENCES += ["budget:affordable", "budget:many"]
FEATURES = CATALOGUE.features(REFERENCES)

moments = st.one_of(
    st.integers(0, 30).map(lambda tile: START + 20 * tile),
    st.integers(0, 2400).map(lambda quarter: START + quarter / 4),
    st.floats(START, START + 600, allow_nan=False),
)
sales = st.builds(
    lambda time, shop, clerk, items, price, member: EntityEvent(
        "sales", time, {"shop": shop, "clerk": clerk, "items": items, "price": price, "member": member}
    ),
    moments,
    st.sampled_from(["a", "b"]),
    st.integers(1, 3),
    st.integers(-(10**6), 10**6) | st.integers(0, 5),
    st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.1, -0.0, 1e6 + 0.1, 150.0]),
    st.booleans(),
)
rows = st.lists(
    st.tuples(moments, st.sampled_from(["a", "b", "never"]), st.integers(1, 3), st.floats(-10, 1e3) | st.none()),
    min_size=1,
    max_size=6,
)


@settings(max_examples=120, deadline=None)
@given(events=st.lists(sales, max_size=60), asked=rows, order=st.randoms(use_true_random=False))
def test_online_values_are_those_of_a_training_set(valkey: str, events, asked, order):
    online = asyncio.run(served(valkey, events, asked, order))
    offline = trained(events, asked)
    for number, row in enumerate(asked):
        for position, feature in enumerate(FEATURES):
            expected, found = offline[feature.column][number], online[number][position]
            assert same(expected, found), (row, feature.reference, expected, found)


def test_every_aggregation_is_held_to_it():
    kinds = {feature.aggregation.kind for feature in FEATURES[:-2]}
    assert kinds == set(get_args(of.Kind))


def same(expected: float | None, found: Any) -> bool:
    """Whole numbers bit for bit; floats to 1e-9, or to 1e-13 of the largest value where they cancel out."""
    if isinstance(expected, float) and isinstance(found, float):
        return isclose(expected, found, rel_tol=1e-9, abs_tol=1e-7)
    return bool(expected == found) and type(expected) is type(found)


def trained(events: Sequence[EntityEvent], asked: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    kinds = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}
    schema = {"event_timestamp": pl.Float64, **{name: kinds[kind] for name, kind in SALES.schema.items()}}
    history = pl.DataFrame([{"event_timestamp": one.time, **one.values} for one in events], schema=schema)
    names = {"time": pl.Float64, "shop": pl.String, "clerk": pl.Int64, "budget": pl.Float64}
    table = pl.DataFrame(asked, schema=names, orient="row")
    return build_training_set(REFERENCES, table, {"sales": history}, catalogue=CATALOGUE).to_dict(as_series=False)


async def served(url: str, events: Sequence[EntityEvent], asked, order: Random) -> list[list[Any]]:
    """Each row's values at a moment when every event before its time has arrived, and no other."""
    async with Redis.from_url(url.rsplit("/", 1)[0] + "/4") as client:
        await client.flushdb()
        store = RedisStore(client, seen_ttl_s=60)
        definitions = fixed(CATALOGUE, store, InMemoryRegistry())
        merging = Merging(definitions, store, Feeds(store), FixedClock(START + 10_000), 0.0)
        values: list[list[Any]] = [[] for _ in asked]
        offset, seen = 0, 0.0
        for number in sorted(range(len(asked)), key=lambda row: asked[row][0]):
            time, shop, clerk, budget = asked[number]
            arriving = [one for one in events if seen <= one.time < time]
            order.shuffle(arriving)
            frames = frames_of(arriving, order, offset)
            offset += len(frames)
            if frames:
                assert not any((await merging.merge_into(frames, lambda *_: True)).late.values())
                await merging.merge_into(frames, lambda *_: True)
            seen = time
            given = {"shop": [shop], "clerk": [clerk], "budget": [budget]}
            columns = await Question(definitions.current, FEATURES, given, np.array([time]), 1).answer(store)
            values[number] = [column.values[0] for column in columns]
        return values


def frames_of(events: list[EntityEvent], order: Random, offset: int) -> list[ReadFrame]:
    cuts = sorted({0, len(events), *(order.randint(0, len(events)) for _ in range(3))})
    return [
        ReadFrame(FramePosition("", order.randint(0, 3), offset + number), events[start:end])
        for number, (start, end) in enumerate(pairwise(cuts))
    ]
