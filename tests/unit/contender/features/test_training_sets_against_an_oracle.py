"""Training sets against the plainest Python there is: for each row a loop over all events."""

from collections.abc import Iterator, Mapping, Sequence
from math import floor, isclose, isfinite, nan
from statistics import stdev
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contender import features as of
from contender.features import Aggregation, Entity, EventSource, FeatureView, column, on_demand
from contender.features.layouts.bins import VALUES, bin_of
from contender.features.layouts.distinct import hash_of
from contender.training import Catalogue, build_training_set

START = 1_700_000_000.0
SHOP, TILL = Entity("shop", "shop"), Entity("till", "till")
SALES = EventSource(
    "sales",
    {"shop": str, "till": int, "items": int, "price": float, "card": bool, "buyer": str},
    ingested_at="ingested_at",
)
NUMERIC = (of.sum, of.mean, of.min, of.max, of.std, of.first, of.last)
DEAR = column("price") > 10
FEW = (column("items") <= 3) & ~column("card").among(True) | (column("buyer") == "zoe")


def features_over(*windows: str) -> list[Any]:
    return [
        of.count(*windows),
        *(make(name, *windows) for make in NUMERIC for name in ("items", "price")),
        of.last_n("items", 3, *windows),
        of.last_n("price", 1, *windows),
        of.quantile("price", 0.5, *windows),
        of.quantile("items", 0.99, *windows),
        of.distinct_count("buyer", *windows, exact_to=16),
        of.distinct_count("price", *windows, exact_to=16),
        of.distinct_count("card", *windows),
        of.sum("price", windows[0], where=DEAR, name="dear"),
        of.last_n("price", 2, windows[0], where=DEAR & FEW, name="last_dear"),
        of.ratio(of.count(*windows, where=DEAR), of.count(*windows), name="dear_share"),
        of.ratio(of.sum("price", *windows), of.sum("items", *windows), name="item_price"),
    ]


VIEWS = [
    FeatureView("shops", SHOP, SALES, features_over("20s", "1m", "all"), hop="20s"),
    FeatureView("tills", [SHOP, TILL], SALES, features_over("90s"), hop="30s", where=FEW),
    FeatureView("everybody", None, SALES, features_over("3m", "all"), hop="1m", max_age="45s"),
]


@on_demand(
    request={"distance": float, "town": str},
    inputs=["shops:mean_price_1m", "shops:count_1m"],
    features={"reach": float, "parts": int, "is_far": bool, "name": str},
)
def trips(distance, town, price, sales):
    """What a trip to the shop is worth."""
    names = np.array([None if text is None else text.upper() for text in town], dtype=object)
    return {"reach": distance / price, "parts": sales * 2, "is_far": distance > 2, "name": names}


CATALOGUE = Catalogue.of([*VIEWS, trips])
COLUMNS = {f"{view.name}__{feature.name}": (view, feature) for view in VIEWS for feature in view.aggregations}


def value_of(
    view: FeatureView, feature: Aggregation, row: Mapping[str, Any], events: Sequence[Any], *, known: bool
) -> Any:
    """A feature by the table of the semantics, one event after the other."""
    if feature.kind == "ratio":
        dividend, divisor = (value_of(view, part, row, events, known=known) for part in feature.of)
        return None if dividend is None or not divisor else dividend / divisor
    seen = sorted(
        inside(view, feature, row, events, known=known), key=lambda event: (event["time"], event.get(feature.column, 0))
    )
    values = [event[feature.column] for event in seen] if feature.column else []
    if feature.kind == "count":
        return len(seen)
    if feature.kind == "distinct_count":
        return distinct(values, feature.exact_to)
    if not seen or row["time"] - seen[-1]["time"] > view.max_age_s:
        return None
    ordered = sorted(values)
    return {
        "sum": lambda: sum(values),
        "mean": lambda: sum(values) / len(values),
        "min": lambda: ordered[0],
        "max": lambda: ordered[-1],
        "std": lambda: stdev(map(float, values)) if len(values) > 1 else None,
        "first": lambda: values[0],
        "last": lambda: values[-1],
        "last_n": lambda: values[::-1][: feature.n],
        "quantile": lambda: VALUES[bin_of(ordered[max(1, -floor(-(len(values) * feature.q - 1e-9))) - 1])],
    }[feature.kind]()


def inside(
    view: FeatureView, feature: Aggregation, row: Mapping[str, Any], events: Sequence[Any], *, known: bool
) -> Iterator[Any]:
    time, hop = row["time"], view.hop_s
    for event in events:
        opens = floor(time / hop) * hop - feature.window_s + hop
        if any(row[key] is None or str(event[key]) != str(row[key]) for key in view.join_keys):
            continue
        if not opens <= event["time"] < time or (known and event["ingested_at"] > time):
            continue
        if feature.where is None or feature.where.holds(event):
            yield event


def distinct(values: Sequence[Any], exact_to: int) -> int:
    hashes = sorted({hash_of(value) for value in values})
    return len(hashes) if len(hashes) < exact_to else round((exact_to - 1) / hashes[exact_to - 1])


def same(expected: Any, actual: Any) -> bool:
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    if isinstance(expected, float) and isinstance(actual, float):
        return isclose(expected, actual, rel_tol=1e-9, abs_tol=1e-6)  # values go to 1e5: where they cancel out, 1e-11
    return type(expected) is type(actual) and bool(expected == actual)


moments = st.one_of(
    st.integers(0, 30).map(lambda tile: START + 20 * tile),
    st.integers(0, 2400).map(lambda quarter: START + quarter / 4),
    st.floats(START, START + 600),
)
sales = st.fixed_dictionaries(
    {
        "time": moments,
        "shop": st.sampled_from(["a", "b", "17"]),
        "till": st.integers(1, 2),
        "items": st.integers(-5, 5) | st.integers(-(10**9), 10**9),
        "price": st.floats(-1e5, 1e5) | st.sampled_from([0.1, -0.0, 0.0, 12.0, 1e5]),
        "card": st.booleans(),
        "buyer": st.sampled_from(["zoe", "yan"]) | st.text(min_size=1, max_size=2),
        "delay": st.sampled_from([0.0, 1.0, 30.0, 500.0]),
    }
).map(lambda sale: {**sale, "ingested_at": sale["time"] + sale["delay"]})
rows = st.fixed_dictionaries(
    {
        "time": moments,
        "shop": st.sampled_from(["a", "b", "17", "never", None]),
        "till": st.integers(1, 3) | st.none(),
        "distance": st.floats(0, 10) | st.none(),
        "town": st.sampled_from(["x", None]),
    }
)
ROW_TYPES = {"time": pl.Float64, "shop": pl.String, "till": pl.Int64, "distance": pl.Float64, "town": pl.String}
EVENT_TYPES = {
    "time": pl.Float64,
    "shop": pl.String,
    "till": pl.Int64,
    "items": pl.Int64,
    "price": pl.Float64,
    "card": pl.Boolean,
    "buyer": pl.String,
    "ingested_at": pl.Float64,
}


@pytest.mark.parametrize("as_known", [False, True])
@settings(max_examples=60, deadline=None)
@given(events=st.lists(sales, max_size=50), asked=st.lists(rows, max_size=6), memory_rows=st.integers(1, 60))
def test_every_feature_is_what_a_loop_over_all_events_gives(as_known, events, asked, memory_rows):
    history = pl.DataFrame([{name: event[name] for name in EVENT_TYPES} for event in events], schema=EVENT_TYPES)
    built = build_training_set(
        [*VIEWS, trips],
        pl.DataFrame(asked, schema=ROW_TYPES),
        {"sales": history},
        as_known=as_known,
        memory_rows=memory_rows,
    )
    for row, got in zip(asked, built.rows(named=True), strict=True):
        expected = {
            name: value_of(view, feature, row, events, known=as_known) for name, (view, feature) in COLUMNS.items()
        }
        for name, value in expected.items():
            assert same(plain(value), got[name]), (name, row, value, got[name])
        for name, value in trip(row, expected).items():
            assert same(value, got[f"trips__{name}"]), (name, row)


def plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def trip(row: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    price, distance = expected["shops__mean_price_1m"], row["distance"]
    with np.errstate(all="ignore"):
        reach = float(np.float64(nan if distance is None else distance) / np.float64(nan if price is None else price))
    return {
        "reach": reach if isfinite(reach) else None,
        "parts": expected["shops__count_1m"] * 2,
        "is_far": distance is not None and distance > 2,
        "name": None if row["town"] is None else row["town"].upper(),
    }
