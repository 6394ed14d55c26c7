"""Sources that change under kept versions, and histories that are not what they should be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from contender.contracts.values import Scalar
from contender.features import Entity, EventSource, FeatureView, count, sum  # noqa: A004
from contender.features.catalogue import Catalogue
from contender.features.errors import DefinitionError, TrainingSetError
from services.feature_service.backfill import Backfill
from services.feature_service.definitions import Definitions, definitions_for_tests
from services.feature_service.domain.rings import HISTORY
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.handlers import MergeResult, Merging
from services.feature_service.health import Health
from services.feature_service.history import HistoryChangedError, cutover_of
from services.feature_service.online import Question
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.events import EntityEvent

NOW = 1_000_000.0
SHOP = Entity("shop", "shop")


def view(schema: dict, *features, key: str = "shop", source: str = "sales") -> FeatureView:
    return FeatureView("trade", Entity(key, key), EventSource(source, schema), features, hop="1m")


def changed(old: FeatureView, *new: FeatureView) -> Merging:
    """A worker that feeds what the definitions say, and a version from before."""
    store = MemoryStore()
    definitions = definitions_for_tests(Catalogue.of(new, Catalogue.of([old]).versions), store, InMemoryRegistry())
    return Merging(definitions, store, PartitionOwnership(store), FixedClock(NOW), 300.0)


async def merge(
    merging: Merging, *values: dict[str, Scalar], at: float = NOW - 100, sent_at: float = NOW
) -> MergeResult:
    events = [EntityEvent("sales", at, fields) for fields in values]
    frame = ReadFrame(FramePosition("", 0, len(merging.store._applied) + int(sent_at)), events, sent_at)
    return await merging.merge_into([frame], lambda *_: True)


async def asked(merging: Merging, reference: str, **keys: str) -> object:
    current = merging.definitions.current
    entities = {name: [value] for name, value in keys.items()}
    question = Question(current, current.catalogue.features([reference]), entities, np.array([NOW]), 1)
    return (await question.answer(merging.store))[0].values[0]


async def test_a_column_more_leaves_kept_versions_fed_and_old_producers_heard():
    old = view({"shop": str, "items": int}, sum("items", "1h"), count("1h"))
    new = view({"shop": str, "items": int, "kind": str}, sum("items", "1h"), count("1h"), count("2h"))
    merging = changed(old, new)
    done = await merge(merging, {"shop": "a", "items": 1}, {"shop": "a", "items": 2, "kind": "k"})
    assert done.misfits == []
    for label in ("trade@1", "trade@2"):
        assert await asked(merging, f"{label}:sum_items_1h", shop="a") == 3
        assert await asked(merging, f"{label}:count_1h", shop="a") == 2


CHANGES = {
    "a renamed column": ({"shop": str, "pieces": int}, "pieces", "shop"),
    "a column of another type": ({"shop": str, "items": float}, "items", "shop"),
    "a renamed join key": ({"store": str, "items": int}, "items", "store"),
}


@pytest.mark.parametrize(("schema", "column", "key"), CHANGES.values(), ids=CHANGES)
async def test_each_version_is_fed_by_the_events_that_have_what_it_reads(schema: dict, column: str, key: str):
    old = view({"shop": str, "items": int}, sum("items", "1h"))
    merging = changed(old, view(schema, sum(column, "1h"), key=key))
    sent = 2.5 if schema[column] is float else 2
    done = await merge(merging, {"shop": "a", "items": 1}, {key: "a", column: sent})
    assert (done.misfits, done.events) == ([], 2)
    assert await asked(merging, "trade@1:sum_items_1h", shop="a") == 1
    both = sent + 1 if schema[column] is float else sent  # a whole number is a number, too
    assert await asked(merging, f"trade@2:sum_{column}_1h", **{key: "a"}) == both


async def test_a_kept_version_whose_source_is_defined_no_longer_is_fed():
    other = FeatureView("other", SHOP, EventSource("others", {"shop": str}), [count("1h")], hop="1m")
    merging = changed(view({"shop": str}, count("1h")), other)
    assert (await merge(merging, {"shop": "a"})).misfits == []
    assert await asked(merging, "trade@1:count_1h", shop="a") == 1


async def test_how_far_ahead_an_event_was_counts_by_when_it_was_sent():
    merging = changed(view({"shop": str}, count("1h")))
    done = await merge(merging, {"shop": "a"}, at=NOW - 100, sent_at=NOW - 1000)
    assert [misfit.reason for misfit in done.misfits] == [
        f"events[0].time is {NOW - 100}: expected seconds since 1970, not in the future"
    ]
    assert (await merge(merging, {"shop": "a"}, at=NOW + 200, sent_at=NOW + 500)).misfits == []


# Histories


def write(path: Path, **columns: list) -> str:
    pl.DataFrame(columns).write_parquet(path)
    return str(path)


def source(path: str, name: str = "sales", **schema: type) -> EventSource:
    return EventSource(name, schema or {"shop": str, "items": int}, history=path)


GOOD = {"event_timestamp": [10.0, 20.0], "shop": ["a", "b"], "items": [1, 2]}
BAD = {
    "times in milliseconds": ({"event_timestamp": [1.6e12, 1.7e12]}, "divide milliseconds by 1000"),
    "a time in the future": ({"event_timestamp": [10.0, NOW + 301]}, "in the future"),
    "a time before 1970": ({"event_timestamp": [-10.0, 20.0]}, "goes back before 1970"),
    "a null": ({"shop": ["a", None]}, "holds 1 nulls"),
    "an empty text": ({"shop": ["a", ""]}, "holds 1 values that no event may have"),
    "a long text": ({"shop": ["a", "b" * 513]}, "holds 1 values that no event may have"),
    "a number beyond 2**53": ({"items": [1, 2**53 + 1]}, "holds 1 values that no event may have"),
    "a column of another type": ({"items": [1.5, 2.5]}, "is Float64, not whole numbers"),
    "no such column": ({"items": None}, "have no column 'items'"),
}


@pytest.mark.parametrize(("columns", "said"), BAD.values(), ids=BAD)
def test_a_history_that_could_not_be_served_is_refused(tmp_path: Path, columns: dict, said: str):
    rows = {name: values for name, values in {**GOOD, **columns}.items() if values is not None}
    with pytest.raises(TrainingSetError, match=said):
        cutover_of(source(write(tmp_path / "h.parquet", **rows)), NOW + 300)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Merging]:
    """A worker whose definitions have a history each: views by the name of their source."""

    async def open_definitions(**paths: str) -> Merging:
        lines = [
            "from contender.features import Entity, EventSource, FeatureView, count",
            'shop = Entity("shop", "shop")',
        ]
        for name, path in paths.items():
            lines += [
                f'{name}_source = EventSource("{name}", {{"shop": str, "items": int}}, history={path!r})',
                f'{name} = FeatureView("{name}", shop, {name}_source, [count("all")], hop="1m")',
            ]
        (tmp_path / "historic_definitions.py").write_text("\n".join(lines) + "\n")
        store = MemoryStore()
        module = str(tmp_path / "historic_definitions.py")
        definitions = Definitions(module, InMemoryRegistry(), store, 1, FixedClock(NOW))
        await definitions.open()
        return Merging(definitions, store, PartitionOwnership(store), FixedClock(NOW), 300.0)

    return open_definitions


async def fill(merging: Merging) -> bool:
    fillers = Backfill("nowhere", merging, Health())
    await merging.ownership.acquire(HISTORY)
    await merging.definitions.refresh()
    return await fillers._from_history(fillers._unfed(HISTORY))


async def counts(merging: Merging, *names: str) -> list[object]:
    current = merging.definitions.current
    features = current.catalogue.features([f"{name}:count_all" for name in names])
    live = Definitions("", merging.definitions.registry, merging.store, 0)
    live._current = type(current)(current.catalogue, current.rings, current.registered, None)
    question = Question(live.current, features, {"shop": ["a"]}, np.array([NOW]), 1)
    return [column.values[0] for column in await question.answer(merging.store)]


async def test_histories_that_end_in_the_same_second_are_each_filled_from_their_own_files(tmp_path: Path, opened):
    merging = await opened(
        sales=write(tmp_path / "a.parquet", **GOOD),
        visits=write(tmp_path / "b.parquet", **{**GOOD, "shop": ["a", "a"]}),
    )
    assert await fill(merging)
    assert await counts(merging, "sales", "visits") == [1, 2]


async def test_a_history_that_has_changed_holds_up_no_other_and_a_rebuild_takes_it_as_it_is(tmp_path: Path, opened):
    path = write(tmp_path / "a.parquet", **GOOD)
    merging = await opened(sales=path, visits=write(tmp_path / "b.parquet", **GOOD))
    write(tmp_path / "a.parquet", **{**GOOD, "shop": ["a", "a"]})
    with pytest.raises(HistoryChangedError, match="contender features rebuild"):
        await fill(merging)
    assert await counts(merging, "sales", "visits") == [0, 1]
    assert await merging.definitions.rebuild() == 1
    assert await fill(merging)
    assert await counts(merging, "sales", "visits") == [2, 1]


async def test_why_a_history_is_not_filled_is_told_until_it_is(tmp_path: Path, opened):
    merging = await opened(sales=write(tmp_path / "a.parquet", **GOOD))
    merging.ownership.assign([])
    fillers = Backfill("nowhere", merging, Health(), history_retry_s=0.0)
    await merging.ownership.acquire(HISTORY)
    await merging.definitions.refresh()
    kept = (tmp_path / "a.parquet").read_bytes()
    write(tmp_path / "a.parquet", **{**GOOD, "shop": ["a", "a"]})
    await fillers._fill(HISTORY, fillers._unfed(HISTORY))
    (why,) = fillers.health.report(NOW).unfilled
    assert "has changed since features were filled from it" in why
    (tmp_path / "a.parquet").write_bytes(kept)
    await fillers._fill(HISTORY, fillers._unfed(HISTORY))
    assert fillers.health.report(NOW).unfilled == []


async def test_a_rebuild_whose_history_can_not_be_read_changes_nothing(tmp_path: Path, opened):
    path = tmp_path / "a.parquet"
    merging = await opened(sales=write(path, **GOOD))
    path.unlink()
    with pytest.raises(DefinitionError, match="view 'sales@1'"):
        await merging.definitions.rebuild()
    assert merging.definitions.current.registered.generation == 0


async def test_events_from_before_the_end_of_the_history_are_counted_as_late(tmp_path: Path, opened):
    merging = await opened(sales=write(tmp_path / "a.parquet", **GOOD))
    frame = ReadFrame(
        FramePosition("", 0, 0), [EntityEvent("sales", at, {"shop": "a", "items": 1}) for at in (19.0, 20.0, 21.0)]
    )
    assert (await merging.merge_into([frame], lambda *_: True)).late == {"sales": 2}
