"""Training sets, value by value from the table of the semantics."""

import numpy as np
import polars as pl
import pytest

from contender.features import (
    DefinitionError,
    EventSource,
    FeatureService,
    FeatureView,
    TrainingSetError,
    UnknownFeatureError,
    column,
    count,
    distinct_count,
    first,
    last,
    last_n,
    mean,
    on_demand,
    quantile,
    ratio,
    std,
)
from contender.features import max as max_of
from contender.features import min as min_of
from contender.features import sum as sum_of
from contender.training import Catalogue, build_training_set
from tests.unit.contender.features.traffic import EVENTS, LANE, ROAD, at, cars, view


def values(feature, events: pl.DataFrame, *times: float, road: str | None = "a", **options) -> list:
    as_known = options.pop("as_known", False)
    built = build_training_set(view(*feature, **options), at(*times, road=road), {"cars": events}, as_known=as_known)
    return built.to_series(-1).to_list()


def test_a_window_begins_with_a_whole_tile_and_ends_before_the_time():
    assert values(count("1m"), EVENTS, 99, 100, 109, 110, 119, 120) == [4, 3, 3, 1, 1, 0]
    assert values(count("1m"), EVENTS, 60, 60.001) == [3, 4]


def test_all_time_has_no_beginning():
    assert values(count("all"), EVENTS, 40, 41, 10_000) == [0, 1, 4]
    assert values(sum_of("speed", "all"), EVENTS, 40, 41, 10_000) == [None, 4.0, 19.0]


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (count("1m"), [4, 0]),
        (sum_of("seats", "1m"), [19, None]),
        (sum_of("speed", "1m"), [19.0, None]),
        (mean("seats", "1m"), [4.75, None]),
        (min_of("seats", "1m"), [1, None]),
        (max_of("speed", "1m"), [9.0, None]),
        (std("seats", "1m"), [pytest.approx(np.std([4, 1, 9, 5], ddof=1)), None]),
        (first("seats", "1m"), [4, None]),
        (last("seats", "1m"), [5, None]),
        (last_n("seats", 3, "1m"), [[5, 9, 1], None]),
        (last_n("speed", 9, "1m"), [[5.0, 9.0, 1.0, 4.0], None]),
        (distinct_count("plate", "1m"), [4, 0]),
        (quantile("speed", 0.5, "1m"), [pytest.approx(4, rel=0.05), None]),
        (ratio(sum_of("seats", "1m"), count("1m"), name="seats_a_car"), [4.75, None]),
    ],
)
def test_each_aggregation_over_a_window_with_and_without_events(feature, expected):
    built = values(feature, EVENTS, 65, 500)
    assert built == expected


def test_types_are_whole_numbers_numbers_and_lists():
    features = (count("1m"), sum_of("seats", "1m"), mean("seats", "1m"), last_n("seats", 2, "1m"))
    built = build_training_set(view(*features), at(), {"cars": EVENTS})
    assert built.dtypes[2:] == [pl.Int64, pl.Int64, pl.Float64, pl.List(pl.Int64)]


def test_of_events_at_the_same_time_last_is_the_greatest_and_first_the_least():
    tied = cars((50, 2.0), (50, 7.0), (50, 3.0))
    assert values(last("speed", "1m"), tied, 60) == [7.0]
    assert values(first("speed", "1m"), tied, 60) == [2.0]
    assert values(last_n("speed", 5, "1m"), tied, 60) == [[7.0, 3.0, 2.0]]


def test_two_events_that_say_the_same_are_two_events():
    assert values(count("1m"), cars((50, 2.0), (50, 2.0)), 60) == [2]


def test_one_event_has_no_deviation():
    assert values(std("speed", "1m"), cars((50, 2.0)), 60) == [None]


def test_an_entity_without_any_event_is_null_and_its_counts_are_0():
    assert values(sum_of("speed", "all"), EVENTS, 60, road="never") == [None]
    assert values(count("all"), EVENTS, 60, road="never") == [0]
    assert values(distinct_count("plate", "all"), EVENTS, 60, road=None) == [0]


def test_beyond_the_maximum_age_a_value_is_null_and_a_count_stays():
    assert values(last("speed", "5m"), EVENTS, 80, 80.5, max_age="20s") == [5.0, None]
    assert values(last_n("speed", 1, "all"), EVENTS, 80, 80.5, max_age="20s") == [[5.0], None]
    assert values(count("5m"), EVENTS, 80, 80.5, max_age="20s") == [4, 4]
    share = ratio(count("5m", where=column("speed") > 4), count("5m"), name="fast")
    assert values(share, EVENTS, 80.5, max_age="20s") == [0.5]


def test_the_maximum_age_is_that_of_events_which_the_filter_lets_through():
    slow = last("speed", "5m", where=column("speed") < 5)
    assert values(slow, EVENTS, 65, 75, max_age="20s") == [1.0, None]


def test_a_filter_says_which_events_count():
    assert values(count("1m", where=column("speed") > 4, name="fast"), EVENTS, 65) == [2]
    assert values(sum_of("speed", "1m", where=column("plate").among("p9.0", "p4.0")), EVENTS, 65) == [13.0]
    assert values(count("1m", where=column("seats") != 9), EVENTS, 65, where=column("speed") > 4) == [1]


def test_a_ratio_is_null_where_the_divisor_is_0():
    none = ratio(sum_of("speed", "1m"), count("1m", where=column("speed") > 99), name="none")
    assert values(none, EVENTS, 65) == [None]


def test_whole_numbers_are_exact_up_to_2_to_the_53():
    many = cars((50, 2.0**52), (51, 2.0**52 - 1), (52, 0.0))
    assert values(sum_of("seats", "1m"), many, 60) == [2**53 - 1]
    assert values(max_of("seats", "1m"), many, 60) == [2**52]


def test_beyond_exact_to_different_values_are_estimated():
    many = cars(*((60 + n / 1000, float(n)) for n in range(3000)))
    assert values(distinct_count("plate", "1m", exact_to=4096), many, 70, hop="1m") == [3000]
    [estimated] = values(distinct_count("plate", "1m", exact_to=1024), many, 70, hop="1m")
    assert estimated == pytest.approx(3000, rel=0.15)


def test_several_join_keys_and_none_at_all():
    rows = pl.DataFrame({"time": [65.0] * 4, "road": ["a", "a", "a", None], "lane": [1, 2, None, 1]})
    assert build_training_set(
        [view(count("1m"), last("speed", "1m"), entity=[ROAD, LANE])], rows, {"cars": EVENTS}
    ).select(pl.nth(-2, -1)).rows() == [(2, 9.0), (2, 5.0), (0, None), (0, None)]
    anywhere = pl.concat([EVENTS, cars((61, 3.0), road="b")])
    assert values(count("1m"), anywhere, 65, entity=None) == [5]


def test_17_and_its_text_are_the_same_entity():
    rows = pl.DataFrame({"time": [65.0], "lane": ["1"]})
    built = build_training_set(view(count("1m"), entity=LANE), rows, {"cars": EVENTS})
    assert built["cars__count_1m"].to_list() == [2]


# As it was known


def test_an_event_is_unseen_until_it_was_ingested():
    late = cars((50, 1.0), (51, 2.0), (52, 3.0), known=[50, 90, 52])
    assert values(count("1m"), late, 60, 89, 90, 99, as_known=True) == [2, 2, 3, 3]
    assert values(count("1m"), late, 60) == [3]
    assert values(last_n("seats", 2, "all"), late, 60, 90, as_known=True) == [[3, 1], [3, 2]]


def test_late_events_leak_neither_into_first_nor_age():
    late = cars((50, 1.0), (51, 1.0), (80, 4.0), known=[200, 51, 85])
    assert values(first("speed", "all"), late, 60, 200, as_known=True) == [1.0, 1.0]
    assert values(last("speed", "5m"), late, 84, 85, max_age="20s", as_known=True) == [None, 4.0]
    assert values(min_of("seats", "5m"), late, 50.5, as_known=True) == [None]


def test_as_known_asks_for_the_time_of_ingestion():
    with pytest.raises(TrainingSetError, match="have no column 'known' with the time of ingestion"):
        values(count("1m"), EVENTS.drop("known"), 60, as_known=True)
    silent = FeatureView("cars", ROAD, EventSource("cars", {"road": str}), [count("1m")], hop="10s")
    with pytest.raises(TrainingSetError, match=r"EventSource\(ingested_at=\)"):
        build_training_set(silent, at(60), {"cars": EVENTS}, as_known=True)


# On demand, and what is asked for


@on_demand(request={"limit": float}, inputs=["cars:mean_speed_1m"], features={"over": int, "share": float})
def limits(limit, speed):
    """How much the cars are over the limit."""
    return {"over": speed - limit, "share": speed / limit}


@on_demand(inputs=["limits:share"], features={"percent": float})
def percents(share):
    return share * 100


MEANS = view(mean("speed", "1m"), count("1m"))
LIMITED = at(65, 65, 500).with_columns(pl.Series("limit", [4.0, None, 4.0]))


def test_on_demand_features_are_computed_from_rows_and_other_features():
    catalogue = Catalogue.of([MEANS, limits, percents])
    built = build_training_set(["percents:percent", "limits:over"], LIMITED, {"cars": EVENTS}, catalogue=catalogue)
    assert built.columns == ["time", "road", "limit", "percents__percent", "limits__over"]
    assert built["limits__over"].to_list() == [0, None, None]
    assert built["percents__percent"].to_list() == [118.75, None, None]
    assert built["limits__over"].dtype == pl.Int64


def test_a_row_must_bring_what_a_request_would():
    with pytest.raises(TrainingSetError, match=r"no column 'limit'.*on-demand view 'limits'"):
        build_training_set([MEANS, limits], at(65), {"cars": EVENTS})
    text = LIMITED.with_columns(limit=pl.lit("4"))
    with pytest.raises(TrainingSetError, match=r"'limit' is String, not numbers"):
        build_training_set([MEANS, limits], text, {"cars": EVENTS})


def test_an_infinite_result_is_null():
    @on_demand(request={"limit": float}, features={"inverse": int})
    def inverses(limit):
        return 1 / limit

    rows = at(65).with_columns(limit=pl.lit(0.0))
    assert build_training_set(inverses, rows)["inverses__inverse"].to_list() == [None]


def test_a_failing_function_is_told_with_its_name():
    @on_demand(request={"limit": float}, features={"inverse": float})
    def inverses(limit):
        return limit.nothing

    with pytest.raises(DefinitionError, match="'inverses' failed"):
        build_training_set(inverses, at(65).with_columns(limit=pl.lit(0.0)))


def test_a_service_and_references_name_features_of_a_catalogue():
    service = FeatureService("all", ["cars:count_1m"])
    catalogue = Catalogue.of([MEANS, service])
    for asked in (service, "all", "cars:count_1m", ["cars:count_1m", "cars:count_1m"]):
        built = build_training_set(asked, at(65), {"cars": EVENTS}, catalogue=catalogue)
        assert built.columns == ["time", "road", "cars__count_1m"]


def test_a_pinned_version_is_computed_beside_the_newest():
    old = Catalogue.of([view(count("1m"))])
    new = Catalogue.of([view(count("1m"), hop="30s")], old.versions)
    asked = ["cars@1:count_1m", "cars@2:count_1m", "cars:count_1m"]
    built = build_training_set(asked, at(105), {"cars": EVENTS}, catalogue=new)
    assert built.columns[2:] == ["cars@1__count_1m", "cars@2__count_1m", "cars__count_1m"]
    assert built.row(0)[2:] == (3, 1, 1)


def test_a_version_is_not_told_by_definitions_that_no_service_has_numbered():
    with pytest.raises(UnknownFeatureError, match="only the service numbers versions: ask for cars:count_1m, which is"):
        build_training_set("cars@1:count_1m", at(65), {"cars": EVENTS}, catalogue=Catalogue.of([MEANS]))


def test_a_reference_without_definitions_says_how_to_give_them():
    with pytest.raises(UnknownFeatureError, match=r"catalogue=Catalogue.load"):
        build_training_set("cars:count_1m", at(65), {"cars": EVENTS})
    with pytest.raises(UnknownFeatureError, match="names no feature; view 'cars' has"):
        build_training_set("cars:sum", at(65), {"cars": EVENTS}, catalogue=Catalogue.of([MEANS]))
