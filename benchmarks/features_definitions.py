"""The definitions that the feature benchmarks run on: 15 windowed features of three views, the flights' kind."""

from contender.features import Entity, EventSource, FeatureService, FeatureView, column, count, last, max, mean  # noqa: A004

origin = Entity("origin", "origin")
carrier = Entity("carrier", "carrier")
aircraft = Entity("aircraft", "tail_number")

departures = EventSource("departures", {"carrier": str, "origin": str, "tail_number": str, "dep_delay": float})
arrivals = EventSource("arrivals", {"carrier": str, "origin": str, "tail_number": str, "arr_delay": float})

LATE = column("dep_delay") > 15  # noqa: PLR2004

# Each of the two views of departures has two rings: one of all departures, one of the late ones.
origin_delays = FeatureView(
    "origin_delays",
    origin,
    departures,
    [mean("dep_delay", "1h", "3h"), count("1h", "3h"), count("1h", where=LATE, name="late_1h")],
    hop="5m",
)
carrier_delays = FeatureView(
    "carrier_delays",
    carrier,
    departures,
    [
        mean("dep_delay", "3h", "24h"),
        count("3h", "24h"),
        max("dep_delay", "24h"),
        count("24h", where=LATE, name="late_24h"),
    ],
    hop="30m",
)
tail_delays = FeatureView(
    "tail_delays",
    aircraft,
    arrivals,
    [last("arr_delay", "24h"), mean("arr_delay", "24h"), count("24h"), max("arr_delay", "24h")],
    hop="1h",
)

fifteen = FeatureService(
    "fifteen",
    [
        f"{view.name}:{feature.name}"
        for view in (origin_delays, carrier_delays, tail_delays)
        for feature in view.aggregations
    ],
)
