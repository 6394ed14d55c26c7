"""On-demand views, documents of definitions, and a changed meaning that is a new version."""

from textwrap import dedent

import msgspec
import numpy as np
import pytest

from contender.features import (
    DefinitionError,
    EventSource,
    FeatureView,
    column,
    distinct_count,
    first,
    last_n,
    on_demand,
    quantile,
    ratio,
    std,
)
from contender.features import count as count_of
from contender.features import sum as sum_of
from contender.features.catalogue import Catalogue
from contender.features.documents import digest, view_document, view_of
from tests.unit.contender.features.speeds import FAST, LANE, ROAD, doubled, view

# On demand


def test_an_on_demand_view_is_its_function_and_its_docstring():
    @on_demand(request={"distance": float}, features={"km": float, "is_far": bool})
    def trips(distance):
        """How far it is."""
        return {"km": distance * 1.609, "is_far": distance > 100}

    assert (trips.name, trips.description) == ("trips", "How far it is.")
    columns = trips.compute([np.array([10.0, 1000.0])])
    assert columns["km"].tolist() == pytest.approx([16.09, 1609.0])
    assert columns["is_far"].tolist() == [False, True]


LIMIT = 50


def outside():
    @on_demand(request={"speed": float}, features={"over": float})
    def limits(speed):
        return speed - LIMIT


def too_few():
    @on_demand(request={"speed": float}, inputs=["speeds:count_1m"], features={"over": float})
    def limits(speed):
        return speed


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (outside, "uses LIMIT from outside"),
        (too_few, "takes 1 parameters"),
        (lambda: doubled(features={"double": list}), "'double' is <class 'list'>"),
        (lambda: doubled(features={"one": float, "two": float}).compute([np.zeros(1)]), "must return one, two by name"),
        (lambda: Catalogue.of([view(), doubled(request={}, inputs=["speeds:none"])]), "'speeds:none' names no feature"),
    ],
)
def test_an_on_demand_view_that_cannot_serve_is_refused(define, message):
    with pytest.raises(DefinitionError, match=message):
        define()


def test_an_on_demand_function_must_work_on_whole_arrays():
    @on_demand(request={"speed": float}, features={"most": float})
    def most(speed):
        return speed.max()

    with pytest.raises(DefinitionError, match=r"shape \(\) for 2 rows"):
        most.compute([np.zeros(2)])


def test_on_demand_views_that_need_each_other_are_refused():
    @on_demand(inputs=["there:x"], features={"x": float})
    def here(x):
        return x

    @on_demand(inputs=["here:x"], features={"x": float})
    def there(x):
        return x

    with pytest.raises(DefinitionError, match=r"in a circle.* here -> there -> here"):
        Catalogue.of([view(), here, there])


# Versions and documents

RICH = view(
    count_of("1m", "all", where=FAST & ~column("road").among("a", "b")),
    sum_of("seats", "1m", description="People.", default=0),
    std("speed", "1m"),
    first("speed", "all"),
    last_n("seats", 3, "1m"),
    distinct_count("road", "1m", exact_to=16),
    quantile("speed", 0.9, "1m"),
    ratio(sum_of("seats", "1m"), count_of("1m"), name="seats_a_car"),
    entity=[ROAD, LANE],
    lateness="30s",
    max_age="5m",
    where=column("electric") == True,  # noqa: E712 - a column, not a truth
    tags={"team": "roads"},
)


@pytest.mark.parametrize("defined", [RICH, view(), view(entity=None), doubled()])
def test_a_view_comes_back_from_its_document(defined):
    document = msgspec.json.decode(msgspec.json.encode(view_document(defined)))
    again = view_of(document)
    assert view_document(again) == view_document(defined)
    assert digest(document) == digest(view_document(defined))
    if isinstance(defined, FeatureView):
        assert (again.aggregations, again.entities, again.source) == (
            defined.aggregations,
            defined.entities,
            defined.source,
        )


def numbered(*definitions, known=()) -> list[str]:
    return [version.label for version in Catalogue.of(definitions, known).versions]


@pytest.mark.parametrize(
    "changed",
    [
        view(count_of("2m")),
        view(hop="20s"),
        view(lateness="2h"),
        view(max_age="5m"),
        view(where=FAST),
        view(entity=[ROAD, LANE]),
        view(entity=None),
        FeatureView("speeds", ROAD, EventSource("cars", {"road": str, "speed": int}), [count_of("1m")], hop="10s"),
    ],
)
def test_a_changed_meaning_is_a_new_version(changed):
    assert numbered(changed, known=Catalogue.of([view()]).versions) == ["speeds@1", "speeds@2"]


@pytest.mark.parametrize(
    "changed",
    [
        view(description="How fast.", owner="me", tags={"a": "b"}, fresh_within="5s"),
        view(count_of("1m", default=3, description="Cars.")),
    ],
)
def test_what_only_tells_about_a_view_is_no_new_version(changed):
    catalogue = Catalogue.of([changed], Catalogue.of([view()]).versions)
    assert [version.label for version in catalogue.versions] == ["speeds@1"]
    assert catalogue.kept["speeds@1"] == changed or view_document(catalogue.kept["speeds@1"]) == view_document(changed)


def test_columns_that_are_called_as_what_only_tells_count_as_any_other():
    def of(**schema: type) -> FeatureView:
        source = EventSource("cars", {"road": str, "default": int, "owner": str, **schema})
        return FeatureView("speeds", ROAD, source, [count_of("1m")], hop="10s")

    assert digest(view_document(of())) != digest(view_document(of(default=float)))
    assert digest(view_document(of())) != digest(view_document(of(owner=int)))
    features = [doubled(features={"owner": kind}) for kind in (int, float)]
    assert len({digest(view_document(feature)) for feature in features}) == 2


def test_the_same_written_otherwise_is_no_new_version():
    old = Catalogue.of([view(count_of("1m", where=column("speed") > 15, name="some"), hop="10s", lateness="1h")])
    same = view(count_of("60s", where=column("speed") > 15.0, name="some"), hop="10s", lateness="60m")
    assert numbered(same, known=old.versions) == ["speeds@1"]


def test_a_meaning_that_comes_back_is_the_version_that_it_was():
    first_one = Catalogue.of([view()])
    second = Catalogue.of([view(count_of("2m"))], first_one.versions)
    again = Catalogue.of([view()], second.versions)
    assert [version.label for version in again.versions] == ["speeds@1", "speeds@2"]
    assert (second.newest("speeds"), again.newest("speeds")) == ("speeds@2", "speeds@1")
    assert again.pinned("speeds:count_1m") == "speeds@1:count_1m"


def test_a_retired_number_is_not_given_again():
    first_one, changed = Catalogue.of([view()]), view(count_of("2m"))
    second = Catalogue.of([changed], first_one.versions)
    known = [msgspec.structs.replace(second.versions[0], retired_after=2), second.versions[1]]
    assert numbered(changed, known=known) == ["speeds@2"]
    assert numbered(view(), known=known) == ["speeds@2", "speeds@3"]


def test_references_mean_the_newest_version_unless_they_pin_one():
    old = Catalogue.of([view()])
    new = Catalogue.of([view(count_of("1m"), hop="20s")], old.versions)
    assert new.pinned("speeds:count_1m") == "speeds@2:count_1m"
    assert new.pinned("speeds@1:count_1m") == "speeds@1:count_1m"
    assert (new.feature("speeds:count_1m").view.hop, new.feature("speeds@1:count_1m").view.hop) == ("20s", "10s")
    assert new.feature("speeds@1:count_1m").column == "speeds@1__count_1m"
    assert [kept.hop for kept in new.kept.values()] == ["10s", "20s"]


def test_an_on_demand_view_is_a_new_version_when_what_it_needs_is():
    @on_demand(inputs=["speeds:count_1m"], features={"half": float})
    def halves(count):
        return count / 2

    old = Catalogue.of([view(), halves])
    assert numbered(view(), halves, known=old.versions) == ["speeds@1", "halves@1"]
    assert "halves@2" in numbered(view(hop="20s"), halves, known=old.versions)
    assert Catalogue.of([view(hop="20s"), halves], old.versions).kept["halves@1"].inputs == ("speeds@1:count_1m",)


def test_a_kept_function_runs_without_the_module_it_came_from(tmp_path):
    module = tmp_path / "mine.py"
    module.write_text(
        dedent(
            """
            from contender.features import *
            from contender.features import count

            cars = EventSource("cars", {"road": str})
            speeds = FeatureView("speeds", Entity("road", "road"), cars, [count("1m")], hop="10s")


            @on_demand(request={"limit": float}, inputs=["speeds:count_1m"], features={"log": float})
            def logs(limit, cars):
                return np.log1p(cars) * limit
            """
        )
    )
    kept = Catalogue.load(str(module)).versions
    logs = view_of(next(kept_version.document for kept_version in kept if kept_version.name == "logs"))
    assert logs.compute([np.array([2.0]), np.array([0.0])])["log"].tolist() == [0.0]
