"""Windows cut from rings: boundaries, later events, and tiles that are gone."""

import asyncio
import math
from dataclasses import replace
from fractions import Fraction
from statistics import variance

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contender.features import count, last, mean, std
from contender.features.conditions import column
from contender.features.definitions import Entity, EventSource, FeatureView
from contender.features.offline import build_training_set
from services.feature_service.domain.rings import Ring, Rings
from services.feature_service.domain.tallies import tally
from services.feature_service.domain.windows import Column, HeldRing, RingBatch, RingGroup
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.protocol import RingQuery
from shared.events import EntityEvent

VIEW = FeatureView(
    "speeds",
    Entity("road", "road"),
    EventSource("cars", {"road": str, "speed": int}),
    [count("1m"), mean("speed", "1m"), last("speed", "1m"), std("speed", "1m")],
    hop="10s",
    lateness="10s",
)
RINGS = Rings.of({"speeds@1": VIEW})
RING = RINGS.ring("speeds@1", VIEW.aggregations[1])


async def values(events: list[tuple[float, int]], *times: float, max_age_s: float = float("inf")) -> list[Column]:
    store = MemoryStore()
    cars = [EntityEvent("cars", time, {"road": "a", "speed": speed}) for time, speed in events]
    for ring in RINGS.all():
        for offset, car in enumerate(cars):
            await store.merge(ring, {"a": [tally(ring, 0, offset, [car])["a"]]})
    columns = []
    for feature in VIEW.aggregations:
        stack = await stacked(store, RINGS.ring("speeds@1", feature), feature.window, *times)
        columns.append(stack.column(0, feature, integer=VIEW.is_integer(feature), max_age_s=max_age_s))
    return columns


async def stacked(store: MemoryStore, ring: Ring, window: str, *times: float) -> RingBatch:
    """What is known of road a as of some times."""
    (held,) = (await store.read([RingQuery(ring, ["a"])])).rings
    (shape,) = RingGroup.all_of({ring: [window]})
    return RingBatch.of(shape, [HeldRing(held, [0] * len(times))], np.array(times))


async def test_on_a_boundary_the_tile_that_begins_contributes_nothing():
    counts, *_ = await values([(99.0, 1), (100.0, 1), (101.0, 1)], 100.0, 100.5)
    assert counts.values == [1, 3]


async def test_the_tile_of_the_asked_time_is_read_whole_and_later_ones_are_not():
    events = [(95.0, 9), (101.0, 4), (103.0, 6), (105.0, 2), (112.0, 5)]
    counts, means, lasts, deviations = (column.values for column in await values(events, 100.0, 101.0, 110.0, 113.0))
    assert counts == [1, 4, 4, 5]
    assert means == [9.0, 5.25, 5.25, 5.2]
    assert lasts == [9, 2, 2, 5]
    assert deviations == pytest.approx([None, (26.75 / 3) ** 0.5, (26.75 / 3) ** 0.5, 6.7**0.5])


async def test_a_base_with_a_later_event_has_lost_what_was_before():
    view = replace(VIEW, features=[count("all")])
    ring = Rings.of({"speeds@1": view}).ring("speeds@1", view.aggregations[0])
    store = MemoryStore()
    for offset, time in enumerate((1.0, 5.0, 5.0 + ring.slots * ring.hop_s)):
        (added,) = tally(ring, 0, offset, [EntityEvent("cars", time, {"road": "a", "speed": 1})]).values()
        await store.merge(ring, {"a": [added]})
    stack = await stacked(store, ring, "all", 4.0, 6.0)
    column = stack.column(0, view.aggregations[0], integer=True, max_age_s=math.inf)
    assert (column.values, column.statuses) == ([None, 2], ["OUTSIDE_MAX_AGE", "PRESENT"])


async def test_a_window_begins_at_a_whole_tile():
    counts, *_ = await values([(49.0, 1), (50.0, 1), (59.0, 1)], 109.0, 110.0)
    assert counts.values == [2, 0]  # from 110 on the window is [60, 110)
    counts, *_ = await values([(50.0, 1), (59.0, 1), (60.0, 1)], 119.0)
    assert counts.values == [1]


async def test_tiles_after_the_asked_time_are_not_seen():
    counts, means, lasts, _ = await values([(55.0, 4), (65.0, 8)], 60.0)
    assert (counts.values, means.values, lasts.values) == ([1], [4.0], [4])


async def test_a_window_whose_tiles_were_replaced_says_so():
    counts, *_ = await values([(5.0, 1), (5.0 + 10 * RING.slots, 1)], 9.0)
    assert (counts.values, counts.statuses) == ([None], ["OUTSIDE_MAX_AGE"])


async def test_a_deviation_takes_two_events():
    *_, deviations = await values([(5.0, 1)], 9.0)
    assert (deviations.values, deviations.statuses) == ([None], ["NULL_VALUE"])
    *_, deviations = await values([(5.0, 1), (15.0, 3)], 19.0)
    assert deviations.values == [2**0.5]


far = st.tuples(st.sampled_from([0.0, 1e9, 1e12, 1.7e12, 1e14, -1e14]), st.sampled_from([0.25, 1.0, 1e3])).flatmap(
    lambda scale: st.lists(
        st.tuples(st.integers(0, 59).map(float), st.floats(-5, 5).map(lambda z: scale[0] + scale[1] * z)),
        min_size=2,
        max_size=40,
    )
)


@settings(max_examples=200, deadline=None)
@given(events=far, frame=st.integers(1, 7))
def test_a_deviation_is_exact_however_far_from_zero_its_values_are(events, frame):
    """Each difference, square and sum is rounded by 1e-16 of itself at most, and 40 of them are added up."""
    source = EventSource("cars", {"road": str, "speed": float})
    view = FeatureView("speeds", Entity("road", "road"), source, [std("speed", "1m")], hop="10s", lateness="1m")
    (deviation,) = view.aggregations
    ring = Rings.of({"speeds@1": view}).ring("speeds@1", deviation)
    cars = [EntityEvent("cars", time, {"road": "a", "speed": speed}) for time, speed in events]
    store = MemoryStore()
    for start in range(0, len(cars), frame):
        asyncio.run(store.merge(ring, {"a": [tally(ring, 0, start, cars[start : start + frame])["a"]]}))
    stack = asyncio.run(stacked(store, ring, "1m", 59.5))
    (online,) = stack.column(0, deviation, integer=False, max_age_s=float("inf")).values
    rows = pl.DataFrame({"time": [59.5], "road": ["a"]})
    history = pl.DataFrame([{"time": event.time, **event.values} for event in cars])
    (offline,) = build_training_set(view, rows, {"cars": history})["speeds__std_speed_1m"]
    exact = math.sqrt(variance(Fraction(speed) for _, speed in events))
    assert online == pytest.approx(exact, rel=1e-12, abs=0)
    assert offline == pytest.approx(exact, rel=1e-12, abs=0)


async def test_whole_numbers_stay_whole():
    counts, means, lasts, _ = await values([(5.0, 3)], 9.0)
    assert [type(column.values[0]) for column in (counts, means, lasts)] == [int, float, int]


async def test_what_is_older_than_the_maximum_age_is_null_and_still_counted():
    counts, means, lasts, _ = await values([(55.0, 3)], 85.0, 86.0, max_age_s=30.0)
    assert counts.values == [1, 1]
    assert (means.values, lasts.statuses) == ([3.0, None], ["PRESENT", "OUTSIDE_MAX_AGE"])


def test_rings_are_stacked_by_layout_and_where_little_is_filled_up():
    spans = ("1m", "4m", "9m", "10m")
    view = replace(VIEW, features=[*(mean("speed", span, where=column("speed") > n) for n, span in enumerate(spans))])
    view = replace(view, features=[*view.aggregations, std("speed", "1m")])
    rings = Rings.of({"speeds@1": view})
    shapes = RingGroup.all_of({rings.ring("speeds@1", feature): [feature.window] for feature in view.aggregations})
    assert sorted([ring.cells for ring in shape.rings] for shape in shapes) == [[8], [8, 26], [56, 62]]
    assert max(shape.cells / min(ring.cells for ring in shape.rings) for shape in shapes) <= 4


async def test_rings_of_a_stack_keep_to_their_own_entities_times_and_bases():
    store = MemoryStore()
    view = replace(
        VIEW,
        features=[
            mean("speed", "1m"),
            mean("speed", "2m", where=column("speed") > 1, name="fast"),
            mean("speed", "all", where=column("speed") > 2, name="ever"),
        ],
        lateness="1m",
    )
    rings = Rings.of({"speeds@1": view})
    for ring in rings.all():
        for offset, time in enumerate((5.0, 100.0, 130.0, 500.0)):
            cars = [EntityEvent("cars", time, {"road": road, "speed": offset + 1}) for road in "ab"[: 2 - offset % 2]]
            await store.merge(ring, {road: [added] for road, added in tally(ring, 0, offset, cars).items()})
    asked = {rings.ring("speeds@1", feature): [feature.window] for feature in view.aggregations}
    (shape,) = RingGroup.all_of(asked)
    held = [HeldRing(*(await store.read([RingQuery(ring, ["a", "b"])])).rings, [1, 0, 1]) for ring in shape.rings]
    for times, expected in (
        ([510.0] * 3, {"mean_speed_1m": [None, 4.0, None], "fast": [None, 4.0, None], "ever": [3.0, 3.5, 3.0]}),
        ([139.0, 505.0, 600.0], {"mean_speed_1m": [3.0, 4.0, None], "fast": [3.0, 4.0, None], "ever": [3.0, 3.5, 3.0]}),
    ):
        stack = RingBatch.of(shape, held, np.array(times))
        for feature in view.aggregations:
            index = list(shape.rings).index(rings.ring("speeds@1", feature))
            assert stack.column(index, feature, integer=False, max_age_s=math.inf).values == expected[feature.name], (
                feature.name
            )
