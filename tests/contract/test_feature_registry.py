"""One contract for the registries of feature versions: in memory, in SQLite, and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from contender.features.catalogue import KeptVersion
from services.feature_service.definitions import Definitions
from services.feature_service.history import HistoryCutover
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import (
    InMemoryRegistry,
    Registry,
    RegistryState,
    open_sql_registry,
)
from tests.contract.databases import empty_database

ONE = KeptVersion("trade", 1, "aa", {"hop": "1h", "note": "ünï"})
TWO = KeptVersion("trade", 2, "bb", {"hop": "30m"})


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    if request.param == "memory":
        yield InMemoryRegistry()
        return
    url = await empty_database(request.param, request, tmp_path)
    async with open_sql_registry(url) as opened:
        yield opened


async def test_a_new_registry_is_empty(registry: Registry):
    assert await registry.load() == RegistryState()


async def test_versions_are_read_as_they_were_kept_and_seams_with_them(registry: Registry):
    assert await registry.keep([ONE], {"trade@1": HistoryCutover(5.5, "cc")})
    assert await registry.keep([ONE, TWO], {})
    state = await registry.load()
    assert state.versions == [ONE, TWO]
    assert state.cutovers == {"trade@1": HistoryCutover(5.5, "cc")}
    assert (state.generation, state.revision) == (0, 2)


async def test_what_is_told_of_a_version_may_change_and_its_meaning_may_not(registry: Registry):
    assert await registry.keep([ONE], {})
    redescribed = KeptVersion("trade", 1, "aa", {"hop": "1h", "note": "otherwise"})
    assert await registry.keep([redescribed], {"trade@1": HistoryCutover(1.0, "dd")})
    assert not await registry.keep([KeptVersion("trade", 1, "zz", {})], {})
    state = await registry.load()
    assert (state.versions, state.cutovers) == ([redescribed], {})


async def test_of_two_processes_that_give_one_number_one_is_refused(registry: Registry):
    other = KeptVersion("trade", 1, "zz", {})
    kept = await asyncio.gather(registry.keep([ONE], {}), registry.keep([other], {}))
    assert sorted(kept) == [False, True]
    assert len((await registry.load()).versions) == 1


async def test_a_rebuild_is_seen_by_everybody(registry: Registry):
    assert [await registry.rebuild({}) for _ in range(2)] == [1, 2]
    state = await registry.load()
    assert (state.generation, state.revision) == (2, 2)


async def test_a_retired_version_says_after_which_number_and_for_good(registry: Registry):
    assert await registry.keep([ONE, TWO], {"trade@1": HistoryCutover(5.5, "cc")})
    await registry.retire(["trade@1", "trade@7", "other@1"])
    three = KeptVersion("trade", 3, "aa", {})
    assert await registry.keep([three], {})
    await asyncio.gather(*(registry.retire(["trade@1", "trade@2"]) for _ in range(2)))
    state = await registry.load()
    assert [(version.label, version.retired_after) for version in state.versions] == [
        ("trade@1", 2),
        ("trade@2", 3),
        ("trade@3", 0),
    ]
    assert state.cutovers == {"trade@1": HistoryCutover(5.5, "cc")}
    assert state.revision >= 4


async def test_changes_of_several_processes_at_once_are_all_counted(registry: Registry):
    assert await registry.keep([ONE], {})
    before = (await registry.load()).revision
    changes = (partial(registry.rebuild, {}), partial(registry.retire, ["trade@1"]))
    await asyncio.gather(*(change() for _ in range(10) for change in changes))
    state = await registry.load()
    assert (state.generation, state.revision) == (10, before + 20)


async def test_who_reads_while_others_register_never_holds_a_revision_without_its_versions(registry: Registry):
    read: list[RegistryState] = []

    async def reading() -> None:
        while len((state := await registry.load()).versions) < 60:
            read.append(state)
            await asyncio.sleep(0)

    async def writing() -> None:
        for number in range(1, 61):
            assert await registry.keep([KeptVersion("trade", number, f"{number}", {})], {})

    await asyncio.gather(reading(), reading(), writing())
    assert [state.revision for state in read if state.revision > len(state.versions)] == []
    assert read


async def test_another_store_begins_a_generation_once_and_the_first_one_none(registry: Registry):
    assert await registry.keep([ONE], {"trade@1": HistoryCutover(5.5, "cc")})
    assert await registry.move("", "first", {})
    assert not await registry.move("", "late", {})
    state = await registry.load()
    assert (state.epoch, state.generation, state.cutovers) == ("first", 0, {"trade@1": HistoryCutover(5.5, "cc")})
    moved = await asyncio.gather(*(registry.move("first", name, {}) for name in ("second", "third")))
    assert sorted(moved) == [False, True]
    state = await registry.load()
    assert (state.epoch in ("second", "third"), state.generation, state.cutovers) == (True, 1, {})


async def test_two_processes_that_start_at_once_agree_on_the_versions(registry: Registry):
    store = MemoryStore()
    both = [Definitions("examples.flights.features", registry, store, 4) for _ in range(2)]
    await asyncio.gather(*(definitions.open() for definitions in both))
    labels = [[version.label for version in definitions.current.catalogue.versions] for definitions in both]
    assert labels[0] == labels[1] == ["origin_delays@1", "carrier_delays@1", "tail_delays@1"]
    assert not both[0].is_complete
