"""Speeds of cars: the source and the views of the tests of definitions and versions."""

from contender.features import Entity, EventSource, FeatureView, column, on_demand
from contender.features import count as count_of
from contender.features.on_demand import OnDemandView

ROAD = Entity("road", "road")
LANE = Entity("lane", "lane")
CARS = EventSource("cars", {"road": str, "lane": int, "speed": float, "seats": int, "electric": bool})
FAST = column("speed") > 50


def view(*features, hop="10s", entity=ROAD, name="speeds", **options) -> FeatureView:
    return FeatureView(name, entity, CARS, features or [count_of("1m")], hop=hop, **options)


def doubled(**options) -> OnDemandView:
    def twice(value):
        return value * 2

    return on_demand(**{"request": {"value": float}, "features": {"double": float}, **options})(twice)
