"""Cars that pass: the source, the views and the events of the tests of training sets."""

import polars as pl

from contender.features import Entity, EventSource, FeatureView

ROAD = Entity("road", "road")
LANE = Entity("lane", "lane")
CARS = EventSource("cars", {"road": str, "lane": int, "speed": float, "seats": int, "plate": str}, ingested_at="known")


def view(*features, entity=ROAD, hop="10s", **options) -> FeatureView:
    return FeatureView("cars", entity, CARS, features, **{"hop": hop, "lateness": "1m", **options})


def cars(*events: tuple[float, float], road: str = "a", known: list[float] | None = None) -> pl.DataFrame:
    """Events of (time, speed); seats are whole speeds."""
    times = [time for time, _ in events]
    return pl.DataFrame(
        {
            "event_timestamp": times,
            "known": known or times,
            "road": [road] * len(events),
            "lane": [1 + number % 2 for number in range(len(events))],
            "speed": [speed for _, speed in events],
            "seats": [int(speed) for _, speed in events],
            "plate": [f"p{speed}" for _, speed in events],
        },
        schema_overrides={"event_timestamp": pl.Float64, "speed": pl.Float64, "known": pl.Float64},
    )


def at(*times: float, road: str | None = "a") -> pl.DataFrame:
    return pl.DataFrame({"time": times, "road": [road] * len(times)}, schema={"time": pl.Float64, "road": pl.String})


EVENTS = cars((40, 4.0), (50, 1.0), (59, 9.0), (60, 5.0))
