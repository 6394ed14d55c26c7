"""Questions for online features: whom rows are about, and how much may be asked for at a time."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from contender.contracts.feature_service import OnlineFeaturesQuestion
from contender.features import Entity, EventSource, FeatureView, count, last_n, std, sum  # noqa: A004
from contender.features.catalogue import Catalogue
from services.feature_service import feast
from services.feature_service.definitions import definitions_for_tests
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.handlers import Merging
from services.feature_service.online import Question, TooManyTilesError
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.settings import FeatureSettings
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.protocol import RingQuery, RingsRead
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.errors import InvalidField, TooLarge
from shared.events import EntityEvent

NOW = 1_000_000.0
SALES = EventSource("sales", {"shop": str, "clerk": int, "items": int})
SHOP, CLERK = Entity("shop", "shop"), Entity("clerk", "clerk")
WHOLE = FeatureView("whole", None, SALES, [count("1h")], hop="1m")
SHOPS = FeatureView("shops", SHOP, SALES, [sum("items", "1h"), count("1h")], hop="1m")
PAIRS = FeatureView("pairs", [SHOP, CLERK], SALES, [count("1h")], hop="1m")
CATALOGUE = Catalogue.of([WHOLE, SHOPS, PAIRS])


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    definitions = definitions_for_tests(CATALOGUE, store, InMemoryRegistry())
    merging = Merging(definitions, store, PartitionOwnership(store), FixedClock(NOW), 300.0)
    events = [EntityEvent("sales", NOW - 100, {"shop": "None", "clerk": 1, "items": 2})]
    await merging.merge_into([ReadFrame(FramePosition("", 0, 0), events)], lambda *_: True)
    return store


async def ask(store: MemoryStore, question: OnlineFeaturesQuestion, most_bytes: float = float("inf")) -> list[tuple]:
    asked = feast.read_question(question, CATALOGUE, NOW, FeatureSettings())
    current = definitions_for_tests(CATALOGUE, store, InMemoryRegistry()).current
    columns = await Question(current, asked.features, question.entities, asked.times, 1, most_bytes).answer(store)
    return [(column.values, column.statuses) for column in columns]


@pytest.mark.parametrize(("times", "rows"), [([], 1), ([NOW], 1), ([NOW, NOW - 200, NOW], 3)])
async def test_features_of_the_whole_need_no_entity(store: MemoryStore, times: list[float], rows: int):
    ((values, statuses),) = await ask(store, OnlineFeaturesQuestion({}, ["whole:count_1h"], event_timestamps=times))
    assert values == [1, 0, 1][:rows]
    assert statuses == ["PRESENT"] * rows


async def test_a_row_without_a_key_is_about_nobody_and_the_others_are_answered(store: MemoryStore):
    question = OnlineFeaturesQuestion({"shop": ["None", None]}, ["shops:sum_items_1h", "shops:count_1h"])
    assert await ask(store, question) == [([2, None], ["PRESENT", "NOT_FOUND"]), ([1, 0], ["PRESENT", "PRESENT"])]
    question = OnlineFeaturesQuestion({"shop": ["None", "None", None], "clerk": [1, None, None]}, ["pairs:count_1h"])
    assert await ask(store, question) == [([1, 0, 0], ["PRESENT"] * 3)]


@pytest.mark.parametrize("key", [1.5, True, 2**53 + 1, "x" * 513])
async def test_a_key_that_no_event_has_is_refused_with_its_row(store: MemoryStore, key: object):
    with pytest.raises(InvalidField) as raised:
        await ask(store, OnlineFeaturesQuestion({"shop": ["a", key]}, ["shops:count_1h"]))
    assert [error.field for error in raised.value.errors] == ["entities.shop[1]"]


async def test_more_tiles_than_may_be_worked_on_are_refused_with_what_may_be_asked(store: MemoryStore):
    question = OnlineFeaturesQuestion({"shop": [f"s{row}" for row in range(100)]}, ["shops:count_1h"])
    assert len((await ask(store, question))[0][0]) == 100
    with pytest.raises(TooManyTilesError, match="MB of tiles for 100 rows; ask for 49 rows a call"):
        await ask(store, question, most_bytes=cells_bytes() * 49.5)
    # Rows of one entity at one time are one piece of work, and at several times they are several.
    question = OnlineFeaturesQuestion({"shop": ["a"] * 100}, ["shops:count_1h"])
    assert len((await ask(store, question, most_bytes=cells_bytes()))[0][0]) == 100
    several = OnlineFeaturesQuestion({"shop": ["a"] * 100}, ["shops:count_1h"], event_timestamps=list(np.arange(100.0)))
    with pytest.raises(TooManyTilesError):
        await ask(store, several, most_bytes=cells_bytes())


async def test_a_question_about_the_past_reads_its_newest_tile_whole():
    store = MemoryStore()
    merging = Merging(
        definitions_for_tests(CATALOGUE, store, InMemoryRegistry()),
        store,
        PartitionOwnership(store),
        FixedClock(NOW),
        300.0,
    )
    start = NOW - NOW % 60
    times = [start - 70.0, start - 30.0, start + 5.0, start + 15.0, start + 70.0]
    events = [EntityEvent("sales", time, {"shop": "a", "clerk": 1, "items": 1}) for time in times]
    await merging.merge_into([ReadFrame(FramePosition("", 0, 0), events)], lambda *_: True)
    asked = [start - 60.0, start, start + 5.0, start + 10.0, start + 60.0, start + 80.0]
    question = OnlineFeaturesQuestion(
        {"shop": ["a"] * 6}, ["shops:sum_items_1h", "whole:count_1h"], event_timestamps=asked
    )
    assert [values for values, _ in await ask(store, question)] == [[1, 2, 4, 4, 4, 5]] * 2


class CountingStore(MemoryStore):
    """Says how often it was read."""

    reads = 0

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        self.reads += 1
        return await super().read(queries)


async def test_however_many_layouts_are_asked_for_there_is_one_read():
    view = FeatureView(
        "trade", SHOP, SALES, [*sum("items", "1h"), *std("items", "1h"), *last_n("items", 2, "1h")], hop="1m"
    )
    catalogue, store = Catalogue.of([view]), CountingStore()
    definitions = definitions_for_tests(catalogue, store, InMemoryRegistry())
    events = [EntityEvent("sales", NOW + number, {"shop": "a", "clerk": 1, "items": number}) for number in range(3)]
    merging = Merging(definitions, store, PartitionOwnership(store), FixedClock(NOW), 300.0)
    await merging.merge_into([ReadFrame(FramePosition("", 0, 0), events)], lambda *_: True)
    features = catalogue.features([f"trade:{feature.name}" for feature in view.aggregations])
    question = Question(definitions.current, features, {"shop": ["a"]}, np.array([NOW + 3]), 1)
    assert [column.values[0] for column in await question.answer(store)] == [3, 1.0, [2, 1]]
    assert store.reads == 1


async def test_of_a_store_that_was_emptied_nothing_is_known_and_no_count_is_zero(store: MemoryStore):
    current = definitions_for_tests(CATALOGUE, store, InMemoryRegistry()).current
    current = replace(current, registered=msgspec.structs.replace(current.registered, epoch=await store.epoch("first")))
    features = CATALOGUE.features(["shops:count_1h", "shops:sum_items_1h", "whole:count_1h"])

    async def asked() -> list[tuple]:
        columns = await Question(current, features, {"shop": ["None"]}, np.array([NOW]), 1).answer(store)
        return [(column.values, column.statuses) for column in columns]

    assert [values for values, _ in await asked()] == [[1], [2], [1]]
    for epoch in ("", "second"):
        store._epoch = epoch
        assert await asked() == [([None], ["NOT_FOUND"])] * 3


def cells_bytes() -> int:
    rings = definitions_for_tests(CATALOGUE, MemoryStore(), InMemoryRegistry()).current.rings
    return rings.ring("shops@1", SHOPS.aggregations[1]).cells_bytes


async def test_a_feature_that_is_named_many_times_is_answered_once(store: MemoryStore):
    question = OnlineFeaturesQuestion({"shop": ["None"]}, ["shops:count_1h", "shops:sum_items_1h"] * 50_000)
    assert await ask(store, question) == [([1], ["PRESENT"]), ([2], ["PRESENT"])]


async def test_more_different_features_than_the_limit_are_refused(store: MemoryStore):
    question = OnlineFeaturesQuestion({"shop": ["None"]}, [f"shops:count_{hours}h" for hours in range(1001)])
    with pytest.raises(TooLarge, match="names 1001 features; one call takes 1000"):
        await ask(store, question)
