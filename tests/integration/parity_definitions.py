"""Every kind of aggregation, over windows and all time, of one, several and no entities."""

import numpy as np

from contender import features as of
from contender.features import Entity, EventSource, FeatureView, column, on_demand

SUMMED = (of.sum, of.mean, of.min, of.max, of.std, of.first, of.last)
DEAR = column("price") > 100.0

shop = Entity("shop", "shop")
clerk = Entity("clerk", "clerk")
sales = EventSource("parity_sales", {"shop": str, "clerk": int, "items": int, "price": float, "member": bool})

minutes = FeatureView(
    "minutes",
    shop,
    sales,
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
)
visits = FeatureView("visits", shop, sales, [of.count("90s"), of.count("30s")], hop="30s", lateness="10m")
pairs = FeatureView(
    "pairs", [shop, clerk], sales, [of.sum("items", "1m"), of.count("all")], hop="20s", where=~DEAR, lateness="10m"
)
whole = FeatureView(
    "whole", None, sales, [of.count("2m"), of.last("price", "2m", "all")], hop="20s", max_age="40s", lateness="10m"
)


@on_demand(
    request={"budget": float},
    inputs=["minutes:mean_price_3m", "minutes:count_3m"],
    features={"affordable": float, "many": bool},
)
def budget(budget, price, count):
    """What a budget buys at the recent price."""
    return {"affordable": budget / price, "many": count > 3}


@on_demand(
    request={"units": int, "note": str},
    inputs=["minutes:last_3_items_3m", "minutes:sum_items_1m"],
    features={"oldest": int, "left": int, "remark": str},
)
def stock(units, note, latest, sold):
    """What is left of the units at hand, and what is said of it."""
    oldest = [None if items is None else items.pop() for items in latest]
    remarks = [None if text is None else f"{text}: {number:g}" for text, number in zip(note, units, strict=True)]
    return {
        "oldest": np.array(oldest, dtype=object),
        "left": units - sold,
        "remark": np.array(remarks, dtype=object),
    }


@on_demand(inputs=["stock:remark", "stock:left"], features={"characters": float})
def remarks(remark, left):
    """How much is said for each unit that is left."""
    left[left == 0] = np.nan
    return np.array([np.nan if text is None else len(text) for text in remark]) / left
