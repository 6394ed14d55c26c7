"""Definitions that can't be are refused with a sentence that helps."""

from pathlib import Path

import polars as pl
import pytest

from contender.features import (
    DefinitionError,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    UnknownFeatureError,
    column,
    distinct_count,
    last_n,
    mean,
    on_demand,
    quantile,
    ratio,
)
from contender.features import count as count_of
from contender.features.catalogue import Catalogue
from contender.features.durations import format_duration
from tests.unit.contender.features.speeds import CARS, FAST, LANE, ROAD, doubled, view

HERE = Path(__file__).name


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (lambda: view(mean("sped", "1m")), "no int or float column 'sped'; it has road"),
        (lambda: view(mean("electric", "1m")), "no int or float column 'electric'"),
        (lambda: view(distinct_count("sped", "1m")), "no column 'sped'"),
        (lambda: view(count_of("15s")), "not a whole number of hops"),
        (lambda: view(count_of("1 hour")), "is not a duration"),
        (lambda: view(count_of("7d"), hop="1s"), "take a longer hop"),
        (lambda: view(distinct_count("lane", "1h", exact_to=4096)), "an entity would take"),
        (lambda: view(count_of("1m"), count_of("1m")), "several features called count_1m"),
        (lambda: view(count_of("1m"), max_age="soon"), "'soon' is not a duration"),
        (lambda: FeatureView("speeds", ROAD, CARS, [], hop="10s"), "has no features"),
        (lambda: view(entity=Entity("driver", "driver")), "no str or int column 'driver'"),
        (lambda: view(entity=[ROAD, ROAD]), "names a join key twice"),
        (lambda: view(name="two__parts"), "single underscores"),
        (lambda: view(name="request"), "reserved for columns of a request"),
        (lambda: EventSource("cars", {"road": list}), "not str, int, float or bool"),
        (lambda: EventSource("cars", {"": str}), "a column has no name"),
        (lambda: EventSource("cars", {"time": float}, timestamp="time"), "must not be in the schema too"),
        (lambda: EventSource("cars", {"known": float}, ingested_at="known"), "must not be in the schema too"),
        (lambda: FeatureService("all", []), "has no features"),
        (count_of, "at least one window"),
        (lambda: count_of("1m", "2m", name="cars"), "can name one window only"),
        (lambda: count_of("1m", name="Cars"), "can't be a feature's name"),
        (lambda: quantile("speed", 1.0, "1m"), "not between 0 and 1"),
        (lambda: last_n("speed", 0, "1m"), "from 1 to 100 values"),
        (lambda: distinct_count("road", "1m", exact_to=2), "from 16 to 4096"),
        (lambda: ratio(count_of("1m"), count_of("1m", "2m"), name="share"), "different numbers of windows"),
        (lambda: ratio("count_1m", count_of("1m"), name="share"), "'count_1m' is not a feature"),
        (lambda: Entity("lane", ["road", "number"]), "is not a column's name; an entity has one"),
        (lambda: ratio(last_n("speed", 2, "1m"), count_of("1m"), name="share"), "last_n is not a number to divide"),
        (lambda: Catalogue.of([view(), view(count_of("2m"))]), r"two different definitions.*the other"),
        (lambda: Catalogue.of([view(), FeatureService("all", ["speeds:none"])]), "feature service 'all'"),
        (lambda: Catalogue.of([view(name="twice"), doubled()]), "there is a view 'twice' too"),
        (lambda: Catalogue.load("no.such.module"), "no.such.module"),
        (lambda: Catalogue.load("shared.clock"), "no FeatureView"),
        (lambda: Catalogue.load("no_such_file.py"), "there is no file 'no_such_file.py'"),
    ],
)
def test_a_definition_that_cannot_be_is_refused(define, message):
    with pytest.raises(DefinitionError, match=message):
        define()


@pytest.mark.parametrize(
    "define",
    [
        lambda: view(mean("sped", "1m")),
        lambda: view(count_of("15s")),
        lambda: view(hop="never"),
        lambda: Entity("Road", "road"),
        lambda: EventSource("cars", {"road": list}),
        lambda: last_n("speed", 0, "1m"),
        lambda: ratio(count_of("1m"), count_of("1m", "2m"), name="share"),
        lambda: FAST and FAST,
        lambda: view(where=column("seats").among(1.5)),
        lambda: view(count_of("1m", where=column("seats").among(1.5))),
        lambda: doubled(features={}),
    ],
)
def test_an_error_begins_with_the_file_and_line_to_mend(define):
    with pytest.raises(DefinitionError, match=r"^\S+\.py:\d+: ") as caught:
        define()
    file, _, line = caught.value.location.rpartition(":")
    name = Path(file).name
    assert name in {HERE, "speeds.py"}  # `view` and `doubled` define there
    assert 1 <= int(line) <= len(Path(__file__).with_name(name).read_text().splitlines())


def test_an_error_in_a_module_of_definitions_names_its_line(tmp_path):
    module = tmp_path / "mine.py"
    module.write_text("from contender.features import *\n\nroad = Entity('road', 'road')\nbroken = 1 / 0\n")
    with pytest.raises(DefinitionError, match=r"mine\.py:4: .*ZeroDivisionError"):
        Catalogue.load(str(module))
    module.write_text("road = (\n")
    with pytest.raises(DefinitionError, match=r"mine\.py:1"):
        Catalogue.load(str(module))


def test_a_reference_to_nothing_lists_what_there_is():
    catalogue = Catalogue.of([view()])
    with pytest.raises(UnknownFeatureError, match="count_1m"):
        catalogue.feature("speeds:mean")
    with pytest.raises(UnknownFeatureError, match="there are speeds; versions of speeds are speeds@1"):
        catalogue.feature("speeds@2:count_1m")


# Conditions


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (column("speed") > 50, [False, True, True]),
        (column("speed") >= 60, [False, True, True]),
        (column("speed") < 60, [True, False, False]),
        (column("speed") <= 50, [True, False, False]),
        (column("speed") == 60, [False, True, False]),
        (column("road") != "a", [False, True, True]),
        (column("road").among("a", "c"), [True, False, True]),
        (~column("road").among("a", "c"), [False, True, False]),
        (FAST & (column("road") == "b"), [False, True, False]),
        ((column("road") == "a") | (column("speed") == 70), [True, False, True]),
    ],
)
def test_a_condition_holds_for_one_event_as_for_a_table_of_them(condition, expected):
    events = [{"road": "a", "speed": 50.0}, {"road": "b", "speed": 60.0}, {"road": "c", "speed": 70.0}]
    assert [condition.holds(event) for event in events] == expected
    looked_at = {name: pl.col(name) for name in ("road", "speed")}
    assert pl.DataFrame(events).select(condition.holds(looked_at).alias("holds"))["holds"].to_list() == expected


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (lambda: FAST and FAST, r"join conditions with & and \|"),
        (lambda: 0 < column("speed") < 50, r"join conditions with & and \|"),
        (lambda: FAST & 1, "in parentheses"),
        (lambda: column("speed") == None, "with a number, text, True or False"),  # noqa: E711
        (lambda: column("speed") > column("seats"), "with a number, text, True or False"),
        (lambda: column("road").among(), "from 1 to 1000 values"),
        (lambda: view(count_of("1m", where=column("sped") > 1)), "the filter looks at 'sped'"),
        (lambda: view(where=column("speed") == "fast"), r"compares .*'speed'.* with 'fast'"),
        (lambda: view(where=column("electric") == 1), r"compares .*'electric'.* with 1"),
        (lambda: view(where=column("seats").among(1, 1.5)), r"lists 1\.5 for column 'seats', which is int"),
        (lambda: view(where=column("seats").among(2**53 + 1)), r"lists 9007199254740993 for column 'seats'"),
        (
            lambda: view(count_of("1m", where=column("speed").among(2**53 + 1))),
            "'count_1m': .* 'speed', which is float",
        ),
        (lambda: view(where=~column("speed").among(10**400)), "'speed', which is float"),
    ],
)
def test_a_condition_that_would_say_something_else_is_refused(define, message):
    with pytest.raises(DefinitionError, match=message):
        define()


def test_listed_values_are_those_of_the_column():
    mixed = column("speed").among(50, 60.5) & ~column("seats").among(2.0, 4)
    share = ratio(count_of("1m", where=mixed), count_of("1m"), name="share")
    fitted = column("speed").among(50.0, 60.5) & ~column("seats").among(2, 4)
    of_all = view(count_of("1m"), where=mixed)
    wheres = [view(share).aggregations[0].parts[0].where, of_all.aggregations[0].where, of_all.where]
    for where in wheres:
        assert where == fitted
        types = [[type(element) for element in value] for _, value in where.columns]
        assert types == [[float, float], [int, int]]
        events = [{"speed": 50.0, "seats": 3}, {"speed": 50.0, "seats": 2}, {"speed": 60.5, "seats": 1}]
        assert [where.holds(event) for event in events] == [True, False, True]
        looked_at = {name: pl.col(name) for name in ("speed", "seats")}
        holds = pl.DataFrame(events).select(where.holds(looked_at).alias("holds"))["holds"]
        assert holds.to_list() == [True, False, True]


def test_the_filter_of_a_view_is_that_of_all_its_features_too():
    slow = column("speed") < 90
    filtered = view(
        count_of("1m"),
        count_of("1m", where=FAST, name="fast"),
        ratio(count_of("1m"), count_of("2m"), name="r"),
        where=slow,
    )
    plain, fast, share = filtered.aggregations
    assert plain.where == slow
    assert fast.where == slow & FAST
    assert [part.where for part in share.parts] == [slow, slow]


# Entities


def test_features_describe_one_entity_several_or_the_whole():
    assert view().join_keys == ("road",)
    assert view(entity=[ROAD, LANE]).join_keys == ("road", "lane")
    assert view(entity=None).join_keys == ()


def test_the_join_keys_of_an_on_demand_feature_are_those_of_its_inputs():
    @on_demand(request={"limit": float}, inputs=["speeds:count_1m", "lanes:count_1m"], features={"share": float})
    def shares(limit, value, other):
        return limit * value / other

    catalogue = Catalogue.of([view(), view(name="lanes", entity=[ROAD, LANE]), shares])
    assert catalogue.join_keys(catalogue.feature("shares:share")) == ["road", "lane"]
    assert catalogue.request_columns(catalogue.feature("shares:share")) == {"limit": float}


def test_a_stretch_of_time_is_told_in_the_unit_that_people_would_use():
    stretches = (None, 0.0123, 1.5, 119.9, 2_100.0, 25_200.0, 104_025_600.0)
    assert [format_duration(seconds) for seconds in stretches] == [
        "-",
        "12 ms",
        "1.5 s",
        "119.9 s",
        "35 min",
        "7 h",
        "1,204 d",
    ]
