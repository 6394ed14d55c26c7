"""On-demand functions take and give the same where they serve as in a training set."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np
import polars as pl
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from contender.features import DefinitionError, Entity, EventSource, FeatureView, TrainingSetError, last_n, on_demand
from contender.features import count as count_of
from contender.features import sum as sum_of
from contender.features.catalogue import Catalogue
from contender.features.functions import compiled
from contender.features.on_demand import OnDemandView
from contender.training import build_training_set
from services.feature_service.definitions import definitions_for_tests
from services.feature_service.domain.windows import Column
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.handlers import Merging
from services.feature_service.on_demand import Failures
from services.feature_service.online import Question
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.events import EntityEvent

NOW = 1_700_000_000.0
SALES = EventSource("sales", {"shop": str, "items": int})
TRADE = FeatureView(
    "trade", Entity("shop", "shop"), SALES, [count_of("1h"), sum_of("items", "1h"), last_n("items", 3, "1h")], hop="5m"
)
EVENTS = [EntityEvent("sales", NOW - 60 + number, {"shop": "a", "items": items}) for number, items in enumerate((3, 5))]
TYPES = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}


@on_demand(request={"x": float}, features={"filled": float})
def filling(x):
    x[np.isnan(x)] = 0.0
    return x


@on_demand(request={"name": str}, features={"is_none": bool})
def nameless(name):
    return np.array([text is None for text in name], dtype=bool)


@on_demand(request={"x": float}, features={"size": str})
def sized(x):
    return np.array([None if number > 1 else "small" for number in x], dtype=object)


@on_demand(inputs=["sized:size"], features={"known": float})
def knowing(size):
    return np.array([0.0 if text is None else 1.0 for text in size])


@on_demand(inputs=["trade:last_3_items_1h"], features={"n": float})
def lengths(lists):
    return np.array([-1.0 if items is None else len(items) for items in lists])


@on_demand(inputs=["trade:last_3_items_1h"], features={"latest": int})
def popping(lists):
    return np.array([None if items is None else items.pop(0) for items in lists], dtype=object)


@on_demand(request={"n": int, "is_open": bool}, inputs=["trade:sum_items_1h", "trade:count_1h"], features={"told": str})
def telling(n, is_open, items, sales):
    table = np.column_stack([n, is_open, items, sales])
    return np.array([f"{table.dtype} {row}" for row in table.tolist()], dtype=object)


@on_demand(request={"x": float}, features={"whole": int, "number": float, "flag": bool})
def kinds(x):
    return {"whole": x, "number": np.where(x > 1, np.inf, x), "flag": x}


ALL = (filling, nameless, sized, knowing, lengths, popping, telling, kinds)


async def served(references: Sequence[str], rows: Mapping[str, Sequence[Any]], views: Sequence[OnDemandView]) -> Any:
    return [column.values for column in await answers(references, rows, views)]


async def answers(
    references: Sequence[str],
    rows: Mapping[str, Sequence[Any]],
    views: Sequence[OnDemandView],
    failures: Failures | None = None,
) -> list[Column]:
    catalogue, store = Catalogue.of([TRADE, *views]), MemoryStore()
    definitions = definitions_for_tests(catalogue, store, InMemoryRegistry())
    merging = Merging(definitions, store, PartitionOwnership(store), FixedClock(NOW), 0.0)
    await merging.merge_into([ReadFrame(FramePosition("", 0, 0), EVENTS)], lambda *_: True)
    times = np.full(len(next(iter(rows.values()))), NOW)
    asked = catalogue.features(references)
    return await Question(definitions.current, asked, rows, times, 1, inf, failures or Failures()).answer(store)


def trained(references: Sequence[str], rows: Mapping[str, Sequence[Any]], views: Sequence[OnDemandView]) -> Any:
    catalogue = Catalogue.of([TRADE, *views])
    kinds = {name: kind for view in views for name, kind in view.request.items()}
    length = len(next(iter(rows.values())))
    columns = {name: pl.Series(values, dtype=TYPES[kinds.get(name, str)]) for name, values in rows.items()}
    table = pl.DataFrame({"time": pl.Series([NOW] * length, dtype=pl.Float64), **columns})
    history = pl.DataFrame([{"time": event.time, **event.values} for event in EVENTS])
    built = build_training_set(references, table, {"sales": history}, catalogue=catalogue)
    return [built[reference.replace(":", "__")].to_list() for reference in references]


@pytest.mark.parametrize(
    ("reference", "rows", "expected"),
    [
        ("filling:filled", {"x": [1.0, None]}, [1.0, 0.0]),
        ("filling:filled", {"x": [1.0]}, [1.0]),
        ("nameless:is_none", {"name": [None]}, [True]),
        ("nameless:is_none", {"name": [None, "", "nan"]}, [True, False, False]),
        ("knowing:known", {"x": [5.0]}, [0.0]),
        ("knowing:known", {"x": [5.0, 0.5]}, [0.0, 1.0]),
        ("lengths:n", {"shop": ["nobody"]}, [-1.0]),
        ("lengths:n", {"shop": ["nobody", "a"]}, [-1.0, 2.0]),
        ("popping:latest", {"shop": ["a", "nobody", "a"]}, [5, None, 5]),
        (
            "telling:told",
            {"n": [2, None], "is_open": [True, None], "shop": ["a", "nobody"]},
            ["float64 [2.0, 1.0, 8.0, 2.0]", "float64 [nan, nan, nan, 0.0]"],
        ),
        ("kinds:whole", {"x": [2.75, -2.75, None, 2.0**53]}, [2, -2, None, 2**53]),
        ("kinds:number", {"x": [2.75, None, -0.5]}, [None, None, -0.5]),
        ("kinds:flag", {"x": [0.0, None, 0.5]}, [False, None, True]),
    ],
)
async def test_a_function_sees_and_says_the_same_on_both_sides(reference, rows, expected):
    (online,), (offline,) = await served([reference], rows, ALL), trained([reference], rows, ALL)
    assert online == offline == expected
    assert list(map(type, online)) == list(map(type, offline)) == list(map(type, expected))


async def test_what_a_function_does_to_its_arguments_is_not_seen_elsewhere():
    references = ["popping:latest", "trade:last_3_items_1h", "lengths:n"]
    rows = {"shop": ["a", "a"]}
    expected = [[5, 5], [[5, 3], [5, 3]], [2.0, 2.0]]
    assert await served(references, rows, ALL) == trained(references, rows, ALL) == expected


def giving(kind: type, text: str) -> OnDemandView:
    """A view whose feature `given` is what a Python expression over x gives."""
    source = f"def wrong(x):\n    return np.array([{text} for one in x])"
    return OnDemandView("wrong", (), {"x": float}, {"given": kind}, source, location="mine.py:7")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (float, "'abc'", "is 'abc', not float"),
        (int, "'12'", "is '12', not int"),
        (bool, "None if one > 1 else 'yes'", "is 'yes', not bool"),
        (float, "None if one > 1 else {one}", "is a set, not float"),
        (float, "1j", "is a complex, not float"),
        (float, "10**400", "is beyond all float64"),
        (str, "one", r"is 2\.0, not str"),
        (str, "np.inf", "is inf, not str"),
        (str, "True", "is True, not str"),
        (int, "3e24", r"is 3e\+24, beyond 2\*\*53"),
        (int, "2**53 + 1", r"is 9007199254740993, beyond 2\*\*53"),
        (int, "None if one > 1 else -2**53 - 1", r"is -9007199254740993, beyond 2\*\*53"),
    ],
)
async def test_what_does_not_fit_its_type_is_invalid_online_and_refused_in_a_training_set(kind, text, message):
    views, rows = [giving(kind, text)], {"x": [2.0, 0.5]}
    failing = [row for row in range(2) if (await answers(["wrong:given"], {"x": [rows["x"][row]]}, views))[0].invalid]
    (column,) = await answers(["wrong:given"], rows, views)
    assert failing
    assert column.invalid == frozenset(failing)
    assert all(column.values[row] is None for row in failing)
    message = rf"^mine\.py:7: on-demand view 'wrong': feature 'given' {message}"
    with pytest.raises(DefinitionError, match=message):
        trained(["wrong:given"], rows, views)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63)])
def test_whole_numbers_that_no_request_may_bring_are_refused_in_rows_too(value):
    with pytest.raises(TrainingSetError, match=r"rows: column 'n' goes beyond 2\*\*53"):
        trained(["telling:told"], {"n": [value, None], "is_open": [True, True], "shop": ["a", "a"]}, ALL)


async def test_no_rows_have_no_values():
    for reference in ("filling:filled", "sized:size", "kinds:whole"):
        assert await served([reference], {"x": []}, ALL) == trained([reference], {"x": []}, ALL) == [[]]


@on_demand(request={"code": str}, features={"area": int, "half": float})
def postal(code):
    area = np.array([int(text[:2]) for text in code])
    return {"area": area, "half": area / 2}


@on_demand(inputs=["postal:area"], features={"next": int})
def following(area):
    return area + 1


async def test_a_row_that_a_function_fails_on_takes_no_other_row_with_it():
    codes = ["80331", None, "AB1", "10115", "", "20095"]
    area, half, later = await answers(
        ["postal:area", "postal:half", "following:next"], {"code": codes}, [postal, following]
    )
    assert area.values == [80, None, None, 10, None, 20]
    assert half.values == [40.0, None, None, 5.0, None, 10.0]
    assert area.statuses == half.statuses == ["PRESENT", "INVALID", "INVALID", "PRESENT", "INVALID", "PRESENT"]
    assert later.values == [81, None, None, 11, None, 21]
    assert later.invalid == {1, 2, 4}


@pytest.mark.parametrize("codes", [["AB1"], ["AB1"] * 5])
async def test_a_function_may_fail_on_every_row(codes):
    (area,) = await answers(["postal:area"], {"code": codes}, [postal])
    assert area.values == [None] * len(codes)
    assert area.statuses == ["INVALID"] * len(codes)


async def test_failed_rows_are_counted_and_the_reason_is_logged_once_a_minute():
    now = [100.0]
    failures = Failures(60.0, lambda: now[0])
    before = REGISTRY.get_sample_value("contender_feature_invalid_rows_total", {"view": "postal@1"}) or 0.0
    with capture_logs() as lines:
        for now[0] in (100.0, 130.0, 161.0):
            await answers(["postal:area"], {"code": ["80331", "x", "y"]}, [postal], failures)
    assert [line["view"] for line in lines] == ["postal@1", "postal@1"]
    assert "invalid literal" in lines[0]["reason"]
    assert REGISTRY.get_sample_value("contender_feature_invalid_rows_total", {"view": "postal@1"}) == before + 6


def test_a_function_is_compiled_once():
    view = giving(float, "one")
    answers = view.compute([np.ones(1)]), view.compute([np.ones(2)])
    assert [answer["given"].tolist() for answer in answers] == [[1.0], [1.0, 1.0]]
    assert compiled(view.source, view.name) is compiled(view.source, view.name)
