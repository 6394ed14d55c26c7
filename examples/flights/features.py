"""Features of the flights example: how late aircraft, airports and carriers have been running.

A delay is known only once it has happened: departures arrive at the time of departure, arrivals at that of landing.
"""

from contender.features import Entity, EventSource, FeatureService, FeatureView, count, last, mean

OWNER = "flights"

origin = Entity("origin", "origin", description="An airport of departure: EWR, JFK or LGA.", owner=OWNER)
carrier = Entity("carrier", "carrier", description="An airline by its two-letter code.", owner=OWNER)
aircraft = Entity("aircraft", "tail_number", description="An aircraft by its tail number.", owner=OWNER)

departures = EventSource(
    "departures",
    schema={"carrier": str, "origin": str, "tail_number": str, "dep_delay": float},
    description="An aircraft has left; dep_delay is how many minutes late (negative: early).",
    owner=OWNER,
)
arrivals = EventSource(
    "arrivals",
    schema={"carrier": str, "origin": str, "tail_number": str, "arr_delay": float},
    description="An aircraft has landed; arr_delay is how many minutes late (negative: early).",
    owner=OWNER,
)

origin_delays = FeatureView(
    "origin_delays",
    entity=origin,
    source=departures,
    features=[mean("dep_delay", "1h"), count("1h"), mean("dep_delay", "3h"), count("3h")],
    hop="5m",
    description="How late and how busy the airport of departure is.",
    owner=OWNER,
)
carrier_delays = FeatureView(
    "carrier_delays",
    entity=carrier,
    source=departures,
    features=[mean("dep_delay", "3h"), count("3h"), mean("dep_delay", "24h"), count("24h")],
    hop="30m",
    description="How late the carrier runs today.",
    owner=OWNER,
)
tail_delays = FeatureView(
    "tail_delays",
    entity=aircraft,
    source=arrivals,
    features=[last("arr_delay", "24h")],
    hop="1h",
    description="How late the aircraft came in last: it can't leave before it is there.",
    owner=OWNER,
)

streaming = FeatureService(
    "streaming",
    features=[
        "origin_delays:mean_dep_delay_1h",
        "origin_delays:count_1h",
        "origin_delays:mean_dep_delay_3h",
        "origin_delays:count_3h",
        "carrier_delays:mean_dep_delay_3h",
        "carrier_delays:count_3h",
        "carrier_delays:mean_dep_delay_24h",
        "carrier_delays:count_24h",
        "tail_delays:last_arr_delay_24h",
    ],
    description="Everything that changes during a day.",
    owner=OWNER,
)
