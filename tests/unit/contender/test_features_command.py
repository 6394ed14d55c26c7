"""`contender features` tells file, line and fix of what is wrong, and all about what is right."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contender.cli import app
from contender.commands.describe import tiles
from contender.features.catalogue import Catalogue
from services.feature_service.domain.rings import Rings

HEAD = """\
from contender.features import (
    Entity, EventSource, FeatureService, FeatureView, column, count, distinct_count, last_n, mean, on_demand, quantile,
    ratio, std,
)
road = Entity("road", "road", description="A road by its number.")
cars = EventSource("cars", {"road": str, "speed": float, "electric": bool}, description="A car passes.", owner="roads")
"""
FIRST = HEAD.count("\n") + 1
VIEW = 'speeds = FeatureView("speeds", road, cars, [mean("speed", "1h", "3h"), count("3h")], hop="5m", owner="roads")\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with nothing named for it in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("CONTENDER_FEATURES", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def call(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, ["features", *arguments])
    assert result.exit_code == code, result.output
    assert code == 0 or isinstance(result.exception, SystemExit)
    return result


def view(features: str, more: str = 'hop="5m"') -> str:
    return f'speeds = FeatureView("speeds", road, cars, [\n    {features}], {more})\n'


def computed(body: str, arguments: str = 'request={"limit": float}') -> str:
    return f'{VIEW}LIMIT = 3.0\n@on_demand({arguments}, features={{"over": float}})\ndef over(limit):\n{body}\n'


WRONG = {
    "an owner that is no text": (VIEW.replace('owner="roads"', "owner=3"), 0, "owner=3 must be text"),
    "tags that are no mapping": (VIEW.replace('owner="roads"', 'tags="x"'), 0, "tags='x'; tags must map str to str"),
    "a history that is not there": (
        'trips = EventSource("trips", {"road": str}, history="nowhere.parquet")\n' + view('count("1h")'),
        0,
        "there is no file 'nowhere.parquet'",
    ),
    "histories in a list": ('trips = EventSource("trips", {"road": str}, history=["a.parquet"])\n', 0, "must be text"),
    "an import in a function that is not there": (
        computed("    import nosuchmodule\n    return limit"),
        2,
        "No module named 'nosuchmodule'",
    ),
    "a function that gives one value": (computed("    return limit.max()"), 2, "shape () for 2 rows"),
    "an open parenthesis": ("speeds = FeatureView(\n", 0, "'(' was never closed; fix the line"),
    "a module that is not there": (
        "import no_such_module_here\n",
        0,
        "No module named 'no_such_module_here'; correct the import",
    ),
    "a name that is not there": ("from contender.features import meen\n", 0, "cannot import name 'meen'"),
    "a function that is not there": (view('meen("speed", "1h")'), 1, "'meen' is not defined; import or define it"),
    "an unknown column": (view('mean("sped", "1h")'), 1, "no int or float column 'sped'; it has road (str), speed"),
    "a column of text": (view('mean("road", "1h")'), 1, "no int or float column 'road'"),
    "a negative window": (view('mean("speed", "-1h")'), 1, "'-1h' is not a duration: write a whole number"),
    "a window of nothing": (view('mean("speed", "0h")'), 1, "'0h' is not a duration"),
    "a window in words": (view('mean("speed", "1 hour")'), 1, "or 'all' for all time"),
    "a window as a number": (view('mean("speed", 3600)'), 1, "3600 is not a duration"),
    "a window of years": (view('mean("speed", "10000d")'), 1, "at most 2048: take a longer hop"),
    "a window beside the hop": (view('mean("speed", "7m")'), 1, "not a whole number of hops of 5m; change one"),
    "lateness of years for all time": (view('count("all")', 'hop="1s", lateness="30d"'), 1, "less lateness"),
    "a hop in words": (view('count("1h")', 'hop="five"'), 0, "view 'speeds', hop: 'five' is not a duration"),
    "no hop": (view('count("1h")', ""), 0, "missing 1 required positional argument: 'hop'"),
    "a view's bad name": (VIEW.replace('"speeds"', '"My Speeds"'), 0, "a name takes lower-case letters"),
    "a name that ends in _": (VIEW.replace('"speeds"', '"speeds_"'), 0, "a name takes lower-case letters"),
    "a feature's bad name": (view('count("1h", name="A b")'), 1, "give another one with name="),
    "a filter on an unknown column": (view('count("1h", where=column("sped") > 1)'), 1, "the filter looks at 'sped'"),
    "a filter of a wrong type": (view('count("1h", where=column("speed") > "a")'), 1, "which is float, with 'a'"),
    "a filter on a list": (view('count("1h", where=column("speed") == [1])'), 1, "several of them by among()"),
    "a filter as text": (view('count("1h", where="speed > 1")'), 1, "is not a filter; write where="),
    "a filter without parentheses": (
        view('count("1h", where=column("speed") > 1 & column("electric") == True)'),
        1,
        "put each comparison in parentheses",
    ),
    "a view's filter": (view('count("1h")', 'hop="5m", where=column("sped") > 1'), 0, "the filter looks at 'sped'"),
    "an entity's name for it": (VIEW.replace("road,", '"road",'), 0, "give the variable, not its name"),
    "a source's name for it": (VIEW.replace("cars,", '"cars",'), 0, "give the variable"),
    "a default of text": (view('mean("speed", "1h", default="x")'), 1, "the default 'x' must be a number"),
    "two views of one name": (VIEW + VIEW.replace("speeds =", "other =").replace("3h", "2h"), 1, "rename one of them"),
    "two views of one variable": (VIEW + VIEW.replace('"speeds"', '"other"'), 1, f"in line {FIRST} is lost; rename"),
    "a service of what is not there": (VIEW + 'FEW = FeatureService("few", ["speeds:no"])\n', 1, "view 'speeds' has"),
    "a service of views": (VIEW + 'FEW = FeatureService("few", [speeds])\n', 1, "write ['view:feature']"),
    "a service of one text": (VIEW + 'FEW = FeatureService("few", "speeds:count_3h")\n', 1, "write ['view:feature']"),
    "an exception": ("def fail():\n    return {}['key']\nfail()\n", 1, "fails with KeyError: 'key'; fix the line"),
    "an end of the program": ("raise SystemExit(3)\n", 0, "the module ends the program"),
    "no view at all": ("", 1 - FIRST, "defines no FeatureView"),
    "a global": (computed("    return limit * LIMIT"), 4, "uses LIMIT from outside; it must stand alone"),
    "a global within": (computed("    return np.array([x * LIMIT for x in limit])"), 4, "uses LIMIT from outside"),
    "too few parameters": (
        computed("    return limit", 'request={"limit": float}, inputs=["speeds:count_3h"]'),
        2,
        "it must take 2, for its request columns and then its inputs: limit, speeds:count_3h",
    ),
    "an input that is not there": (computed("    return limit", 'inputs=["speeds:no"]'), 2, "names no feature"),
    "an input of itself": (
        computed("    return limit", 'inputs=["over:over"]'),
        2,
        "in a circle, over -> over; remove",
    ),
}


@pytest.mark.parametrize("target", ["wrong.py", "wrong"])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_line_and_what_to_do(here, monkeypatch, target, wrong):
    text, line, message = wrong
    (here / "wrong.py").write_text(HEAD + text)
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    result = call("check", target, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith(f"wrong.py:{FIRST + line}: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_on_demand_views_that_need_each_other_are_refused(here):
    circle = "".join(
        f'@on_demand(inputs=["{other}:x"], features={{"x": float}})\ndef {own}(x):\n    return x\n'
        for own, other in (("one", "two"), ("two", "one"))
    )
    (here / "wrong.py").write_text(HEAD + VIEW + circle)
    assert "in a circle, one -> two -> one" in call("check", "wrong.py", code=1).stderr


def test_a_fault_in_a_module_that_is_imported_is_told_with_its_own_line(here, monkeypatch):
    (here / "sources_of_it.py").write_text("\nx = 1 / 0\n")
    (here / "wrong.py").write_text("import sources_of_it\n")
    monkeypatch.delitem(sys.modules, "wrong", raising=False)
    for target in ("wrong", "wrong.py"):
        assert call("check", target, code=1).stderr.startswith("sources_of_it.py:2: the module fails with ZeroDivision")


@pytest.mark.parametrize("target", ["no_such.module", "no_such.py", "no_such", ""])
def test_a_module_that_is_not_there_is_told_in_one_line(target):
    result = call("check", target, code=1)
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_the_variable_names_what_is_checked_and_the_example_is_usual(here, monkeypatch):
    assert "examples.flights.features is valid: 3 entities, 2 sources, 3 views" in call("check").stdout
    (here / "own.py").write_text(HEAD + VIEW)
    monkeypatch.setenv("CONTENDER_FEATURES", "own.py")
    assert call("check").stdout == (
        "own.py is valid: 1 entity, 1 source, 1 view, 0 on-demand views, 3 features, 0 feature services.\n"
    )


def test_an_on_demand_function_may_import_and_define_within_and_have_hints(here):
    body = "    import math\n    factor = 2\n    return limit * math.pi * sum(factor for _ in range(2))"
    (here / "own.py").write_text(HEAD + computed(body).replace("over(limit)", "over(limit: 'Array') -> 'Array'"))
    call("check", "own.py")


def test_new_writes_definitions_that_pass_and_that_show_explains(here):
    written = call("new", "payments")
    assert "contender features check payments.py" in written.stdout
    assert f"export CONTENDER_FEATURES={here / 'payments.py'}" in written.stdout
    assert "payments.py is valid" in call("check", "payments.py").stdout
    for reference in ("payments", "customer", "payments_activity", "payments_compared", "payments_model"):
        assert reference in call("show", reference, "payments.py").stdout


def test_new_overwrites_nothing_and_takes_no_odd_name(here):
    (here / "there.py").write_text("kept")
    assert "there.py exists already" in call("new", "there", code=1).stderr
    assert "lower-case letters" in call("new", "No Name", code=1).stderr
    assert "must end in .py" in call("new", "pay", "--path", "pay.txt", code=1).stderr
    assert "can't be written" in call("new", "pay", "--path", "no/such/pay.py", code=1).stderr
    assert (here / "there.py").read_text() == "kept"
    assert [path.name for path in here.iterdir()] == ["there.py"]


def test_the_list_has_a_line_of_json_per_feature():
    lines = [json.loads(line) for line in call("list", "--json").stdout.splitlines()]
    assert len(lines) == 9
    assert lines[0] == {
        "reference": "origin_delays:mean_dep_delay_1h",
        "kind": "mean",
        "window": "1h",
        "entity_keys": ["origin"],
        "source": "departures",
        "owner": "flights",
        "description": "How late and how busy the airport of departure is.",
    }


@pytest.mark.parametrize("arguments", [("list",), ("show", "origin_delays"), ("show", "origin_delays:count_3h")])
def test_tables_fit_eighty_columns_and_have_no_colour_without_a_terminal(arguments):
    printed = call(*arguments).stdout
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert "\x1b" not in printed
    assert "mean_dep_delay_1h" in printed
    assert "…" not in printed


def test_a_view_is_shown_with_all_that_it_is_made_of(here):
    (here / "own.py").write_text(HEAD + VIEW)
    words = " ".join(call("show", "speeds", "own.py").stdout.split())
    for part in (
        "meaning digest ",
        "road by road",
        "road str, speed float, electric bool",
        "topic entity-events",
        "mean of speed the last 3 h in steps of 5 m",
        "49 72 3,528",
        "An entity takes 3,656 bytes of memory, its offsets included.",
        f"defined at own.py:{FIRST}",
    ):
        assert part in words


def test_a_feature_is_shown_with_its_window_cost_and_what_shares_it(here):
    (here / "own.py").write_text(HEAD + VIEW)
    words = " ".join(call("show", "speeds@1:count_3h", "own.py").stdout.split())
    assert "covers the last 3 h in steps of 5 m" in words
    assert "3,528 bytes per entity, shared with mean_speed_1h, mean_speed_3h" in words
    shown = json.loads(call("show", "speeds:count_3h", "own.py", "--json").stdout)
    assert (shown["what"], shown["over_an_empty_window"], shown["view"]["name"]) == ("feature", 0, "speeds")


def test_an_on_demand_view_is_shown_with_its_function(here):
    (here / "own.py").write_text(HEAD + computed("    return limit * 2"))
    for reference in ("over", "over:over"):
        printed = call("show", reference, "own.py").stdout
        assert "limit float" in printed
        assert "def over(limit):\n    return limit * 2" in printed


def test_what_shares_a_name_is_all_shown_and_what_is_nowhere_has_a_hint(here):
    (here / "own.py").write_text(HEAD + VIEW + 'few = FeatureService("road", ["speeds:count_3h"])\n')
    kinds = [json.loads(line)["what"] for line in call("show", "road", "own.py", "--json").stdout.splitlines()]
    assert kinds == ["entity", "feature service"]
    assert "did you mean speeds?" in call("show", "speed", "own.py", code=1).stderr
    assert "names no feature; view 'speeds' has" in call("show", "speeds:no", "own.py", code=1).stderr
    assert "names no view" in call("show", "speeds@2", "own.py", code=1).stderr


def test_the_bytes_that_are_told_are_those_that_the_store_keeps(here):
    features = (
        'mean("speed", "1h", "3h", "all"), std("speed", "1h", "2h"), count("3h"), '
        'count("1h", name="fast", where=column("speed") > 100), '
        'last_n("speed", 5, "1h"), distinct_count("road", "1h", "all"), quantile("speed", 0.5, "2h"), '
        'ratio(count("1h", where=column("electric") == True), count("1h"), name="electric_share")'
    )
    (here / "own.py").write_text(HEAD + view(features))
    speeds = Catalogue.load("own.py").views["speeds"]
    kept = Rings.of({"speeds@1": speeds}).all()
    assert sorted(group["bytes"] for group in tiles(speeds)) == sorted(ring.cells_bytes for ring in kept)


def test_a_mean_and_a_deviation_of_one_column_take_tiles_of_their_own(here):
    (here / "own.py").write_text(HEAD + view('mean("speed", "1h"), std("speed", "1h", "3h"), count("3h")'))
    kept = json.loads(call("show", "speeds", "own.py", "--json").stdout)["tiles"]
    assert {(*group["features"], group["tile_bytes"]) for group in kept} == {
        ("count_3h", "mean_speed_1h", 72),
        ("std_speed_1h", "std_speed_3h", 56),
    }


def test_a_count_beside_deviations_alone_takes_tiles_of_sums(here):
    (here / "own.py").write_text(HEAD + view('std("speed", "1h"), count("3h")'))
    kept = json.loads(call("show", "speeds", "own.py", "--json").stdout)["tiles"]
    assert {(*group["features"], group["column"], group["tile_bytes"]) for group in kept} == {
        ("count_3h", "", 72),
        ("std_speed_1h", "speed", 56),
    }
