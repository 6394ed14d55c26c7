"""Definitions that can't be are refused with a sentence that helps."""

import polars as pl
import pytest

from contender.features import (
    DefinitionError,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    UnknownFeatureError,
    last,
    mean,
)
from contender.features import count as count_of
from contender.training import build_training_set
from shared.features.catalogue import Catalogue
from shared.features.errors import TrainingSetError

ROAD = Entity("road", "road")
CARS = EventSource("cars", {"road": str, "speed": float, "electric": bool})


def view(*features, hop="10s", entity=ROAD, name="speeds") -> FeatureView:
    return FeatureView(name, entity, CARS, features or [count_of("1m")], hop=hop)


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (lambda: view(mean("sped", "1m")), "no int or float column 'sped'"),
        (lambda: view(mean("electric", "1m")), "no int or float column 'electric'"),
        (lambda: view(count_of("15s")), "not a whole number of hops"),
        (lambda: view(count_of("1 hour")), "is not a duration"),
        (lambda: view(count_of("7d"), hop="1s"), "take a longer hop"),
        (lambda: view(count_of("1m"), count_of("1m")), "several features called count_1m"),
        (lambda: FeatureView("speeds", ROAD, CARS, [], hop="10s"), "has no features"),
        (lambda: view(entity=Entity("driver", "driver")), "no str or int column 'driver'"),
        (lambda: view(name="two__parts"), "single underscores"),
        (lambda: EventSource("cars", {"road": list}), "not str, int, float or bool"),
        (lambda: EventSource("cars", {"time": float}, timestamp="time"), "must not be in the schema too"),
        (lambda: Catalogue.of([view(), view(count_of("2m"))]), "two different definitions"),
        (lambda: Catalogue.of([view(), FeatureService("all", ["speeds:none"])]), "feature service 'all'"),
        (lambda: Catalogue.load("no.such.module"), "no.such.module"),
        (lambda: Catalogue.load("shared.clock"), "no FeatureView"),
    ],
)
def test_a_definition_that_cannot_be_is_refused(define, message):
    with pytest.raises(DefinitionError, match=message):
        define()


def test_a_reference_to_nothing_lists_what_there_is():
    with pytest.raises(UnknownFeatureError, match="count_1m"):
        Catalogue.of([view()]).feature("speeds:mean")


def test_a_training_set_sees_nothing_of_its_own_moment_or_later():
    events = pl.DataFrame({"event_timestamp": [5.0, 8.0, 8.0, 9.0], "road": ["a"] * 4, "speed": [1.0, 2.0, 3.0, 4.0]})
    rows = pl.DataFrame({"time": [8.0, 5.0, 9.0, 70.0], "road": ["a", "a", "a", "a"]})
    found = build_training_set([view(count_of("1m"), last("speed", "1m"))], rows, {"cars": events})
    assert found["speeds__count_1m"].to_list() == [1, 0, 3, 0]
    assert found["speeds__last_speed_1m"].to_list() == [1.0, None, 3.0, None]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (pl.DataFrame({"event_timestamp": [1.0], "road": ["a"]}), "no column 'speed'"),
        (pl.DataFrame({"event_timestamp": [1.0], "road": ["a"], "speed": [None]}), "holds 1 nulls"),
        (pl.DataFrame({"event_timestamp": [1.0], "road": ["a"], "speed": ["x"]}), "not float"),
        (pl.DataFrame({"event_timestamp": [1.0], "road": ["a"], "speed": [float("nan")]}), "NaN"),
    ],
)
def test_a_history_that_does_not_fit_is_refused(events, message):
    rows = pl.DataFrame({"time": [8.0], "road": ["a"]})
    with pytest.raises(TrainingSetError, match=message):
        build_training_set([view(mean("speed", "1m"))], rows, {"cars": events})
