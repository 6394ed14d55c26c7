"""A view with features of every kind."""

import pytest

from contender import features as of
from contender.features.conditions import column
from contender.features.definitions import Entity, EventSource, FeatureView

WINDOWS = ("1h", "all")


@pytest.fixture
def trade() -> FeatureView:
    return FeatureView(
        "trade",
        Entity("shop", "shop"),
        EventSource("sales", {"shop": str, "items": int}),
        [
            of.count(*WINDOWS),
            *(kind("items", *WINDOWS) for kind in (of.sum, of.mean, of.min, of.max, of.std, of.first, of.last)),
            of.last_n("items", 3, *WINDOWS),
            of.distinct_count("items", *WINDOWS),
            of.quantile("items", 0.5, *WINDOWS),
            of.ratio(of.sum("items", "1h", where=column("items") > 0), of.count("1h"), name="sold_per_sale"),
        ],
        hop="5m",
    )
