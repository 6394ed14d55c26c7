"""Online and offline values are the same: any events, out of order and with ties, over the real store."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from math import isclose
from random import Random
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from services.feature_service.domain.rings import Rings
from services.feature_service.handlers import Merging, OnlineFeatures, ReadFrame
from services.feature_service.store.protocol import FramePosition
from services.feature_service.store.redis import RedisStore
from shared.clock import FixedClock
from shared.events import EntityEvent
from shared.features import aggregations as of
from shared.features.catalogue import Catalogue
from shared.features.definitions import Entity, EventSource, FeatureView
from shared.features.offline import build_training_set

START = 1_700_000_000.0
NUMERIC = (of.sum, of.mean, of.min, of.max, of.std, of.last)
SHOP = Entity("shop", "shop")
SALES = EventSource("sales", {"shop": str, "items": int, "price": float})
VIEWS = [
    FeatureView(
        "minutes",
        SHOP,
        SALES,
        [
            *(make(column, "1m") for make in NUMERIC for column in ("items", "price")),
            *(make("price", "3m") for make in NUMERIC),
            of.count("1m"),
            of.count("3m"),
        ],
        hop="20s",
        lateness="10m",
    ),
    FeatureView("visits", SHOP, SALES, [of.count("90s"), of.count("30s")], hop="30s", lateness="10m"),
]
CATALOGUE = Catalogue.of(VIEWS)
FEATURES = CATALOGUE.features([f"{view.name}:{feature.name}" for view in VIEWS for feature in view.features])

moments = st.one_of(
    st.integers(0, 30).map(lambda tile: START + 20 * tile),
    st.integers(0, 2400).map(lambda quarter: START + quarter / 4),
    st.floats(START, START + 600, allow_nan=False),
)
sales = st.builds(
    lambda time, shop, items, price: EntityEvent("sales", time, {"shop": shop, "items": items, "price": price}),
    moments,
    st.sampled_from(["a", "b"]),
    st.integers(-(10**6), 10**6),
    st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.1, -0.0, 1e6 + 0.1]),
)
rows = st.lists(st.tuples(moments, st.sampled_from(["a", "b", "never"])), min_size=1, max_size=6)


@settings(max_examples=120, deadline=None)
@given(events=st.lists(sales, max_size=60), asked=rows, order=st.randoms(use_true_random=False))
def test_online_values_are_those_of_a_training_set(valkey: str, events, asked, order):
    online = asyncio.run(served(valkey, events, asked, order))
    offline = trained(events, asked)
    for number, row in enumerate(asked):
        for position, feature in enumerate(FEATURES):
            expected, found = offline[feature.column][number], online[number][position]
            assert same(expected, found), (row, feature.reference, expected, found)


def same(expected: float | None, found: Any) -> bool:
    """Whole numbers bit for bit; floats to 1e-9, or to 1e-13 of the largest value where they cancel out."""
    if isinstance(expected, float) and isinstance(found, float):
        return isclose(expected, found, rel_tol=1e-9, abs_tol=1e-7)
    return bool(expected == found) and type(expected) is type(found)


def trained(events: Sequence[EntityEvent], asked: Sequence[tuple[float, str]]) -> dict[str, list[Any]]:
    schema = {"event_timestamp": pl.Float64, "shop": pl.String, "items": pl.Int64, "price": pl.Float64}
    history = pl.DataFrame([{"event_timestamp": one.time, **one.values} for one in events], schema=schema)
    table = pl.DataFrame({"time": [time for time, _ in asked], "shop": [shop for _, shop in asked]})
    return build_training_set(VIEWS, table, {"sales": history}).to_dict(as_series=False)


async def served(url: str, events: Sequence[EntityEvent], asked, order: Random) -> list[list[Any]]:
    """Each row's values at a moment when every event before its time has arrived, and no other."""
    async with Redis.from_url(url.rsplit("/", 1)[0] + "/4") as client:
        await client.flushdb()
        store = RedisStore(client, seen_ttl_s=60)
        rings = Rings.of(CATALOGUE)
        merging = Merging(CATALOGUE, rings, store, FixedClock(START + 10_000), 0.0)
        features = OnlineFeatures(CATALOGUE, rings, store)
        values: list[list[Any]] = [[] for _ in asked]
        offset, seen = 0, 0.0
        for number in sorted(range(len(asked)), key=lambda row: asked[row][0]):
            time, shop = asked[number]
            arriving = [one for one in events if seen <= one.time < time]
            order.shuffle(arriving)
            frames = frames_of(arriving, order, offset)
            offset += len(frames)
            if frames:
                assert (await merging.merge(frames)).late == 0
                await merging.merge(frames)
            seen = time
            columns = await features.values(FEATURES, {"shop": [shop]}, np.array([time]))
            values[number] = [column.values[0] for column in columns]
        return values


def frames_of(events: list[EntityEvent], order: Random, offset: int) -> list[ReadFrame]:
    cuts = sorted({0, len(events), *(order.randint(0, len(events)) for _ in range(3))})
    return [
        ReadFrame(FramePosition("", order.randint(0, 3), offset + number), events[start:end])
        for number, (start, end) in enumerate(pairwise(cuts))
    ]
