"""Versions that are kept no longer, and the rings that they and rebuilds leave behind."""

import sys
from pathlib import Path

import pytest

from contender.features.errors import UnknownFeatureError
from services.feature_service.definitions import Definitions
from services.feature_service.domain.rings import Ring
from services.feature_service.domain.tallies import tally
from services.feature_service.errors import UnknownVersionError, VersionInUseError
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import InMemoryRegistry
from services.feature_service.sweeping import Sweeper
from shared.events import EntityEvent

HEAD = """
from contender.features import Entity, EventSource, FeatureView, count, on_demand, sum

shop = Entity("shop", "shop")
sales = EventSource("sales", {"shop": str, "items": int})
"""
HOURLY = HEAD + 'trade = FeatureView("trade", shop, sales, [sum("items", "24h", "all")], hop="1h")\n'
FINER = HEAD + 'trade = FeatureView("trade", shop, sales, [sum("items", "24h", "all")], hop="30m")\n'
COMPUTED = """
@on_demand(request={}, inputs=["trade:sum_items_24h"], features={"twice": float})
def doubled(items):
    return {"twice": 2 * items}
"""
OTHER = HEAD + 'visits = FeatureView("visits", shop, sales, [sum("items", "24h")], hop="1h")\n'


@pytest.fixture
async def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = tmp_path / "retired_definitions.py"
    module.write_text(HOURLY)
    definitions = Definitions(str(module), InMemoryRegistry(), MemoryStore(), 1)
    await definitions.open()
    return definitions


async def define(definitions: Definitions, text: str) -> list[str]:
    Path(definitions.module).write_text(text)
    return await definitions.apply()


def labels(definitions: Definitions) -> list[str]:
    return [version.label for version in definitions.current.catalogue.versions]


def all_time(definitions: Definitions, label: str) -> Ring:
    return next(ring for ring in definitions.current.rings.of_view(label) if ring.has_base)


async def hold(definitions: Definitions, ring: Ring) -> None:
    tallies = tally(ring, 0, 0, [EntityEvent("sales", 10.0, {"shop": "s", "items": 1})])
    await definitions.store.merge(ring, {entity: [tally] for entity, tally in tallies.items()})


async def test_a_retired_version_is_neither_served_nor_fed(definitions: Definitions):
    await define(definitions, FINER)
    left = all_time(definitions, "trade@1").name
    await definitions.retire(["trade@1"])
    assert labels(definitions) == ["trade@2"]
    assert left not in {ring.name for ring in definitions.current.rings.all()}
    with pytest.raises(UnknownFeatureError, match="versions of trade are trade@2"):
        definitions.current.catalogue.feature("trade@1:sum_items_24h")
    await definitions.retire(["trade@1"])
    assert labels(definitions) == ["trade@2"]


async def test_a_meaning_that_comes_back_is_a_new_version_with_rings_of_its_own(definitions: Definitions):
    left = all_time(definitions, "trade@1").name
    await define(definitions, FINER)
    await definitions.retire(["trade@1"])
    assert await define(definitions, HOURLY) == ["trade@3"]
    own = all_time(definitions, "trade@3").name
    assert own != left
    await definitions.retire(["trade@2"])
    assert all_time(definitions, "trade@3").name == own


async def test_a_view_that_was_taken_out_may_be_retired_and_its_number_is_not_given_again(definitions: Definitions):
    assert await define(definitions, OTHER) == ["visits@1"]
    await definitions.retire(["trade@1"])
    assert await define(definitions, HOURLY) == ["trade@2"]
    assert labels(definitions) == ["visits@1", "trade@2"]


async def test_what_is_in_use_is_not_retired(definitions: Definitions):
    await define(definitions, HOURLY + COMPUTED)
    await define(definitions, FINER + COMPUTED)
    assert labels(definitions) == ["trade@1", "doubled@1", "trade@2", "doubled@2"]
    for wanted, error, said in [
        (["trade@2"], VersionInUseError, "the definitions use trade@2"),
        (["trade@1"], VersionInUseError, "doubled@1 is computed from trade@1; retire it, too"),
        (["doubled@1", "trade@9"], UnknownVersionError, "there is no version 'trade@9'; there are doubled@1"),
    ]:
        with pytest.raises(error, match=said):
            await definitions.retire(wanted)
    assert len(labels(definitions)) == 4
    await definitions.retire(["trade@1", "doubled@1"])
    assert labels(definitions) == ["trade@2", "doubled@2"]


async def test_dead_rings_are_deleted_once_every_worker_has_had_time_to_know(definitions: Definitions):
    store, sweeper = definitions.store, Sweeper(definitions, definitions.store)
    dead = all_time(definitions, "trade@1")
    await define(definitions, FINER)
    alive = all_time(definitions, "trade@2")
    for ring in (dead, alive):
        await hold(definitions, ring)
    await sweeper.sweep()
    await definitions.retire(["trade@1"])
    await sweeper.sweep()
    assert (await store.entities([dead]))[dead.name] == 1
    await sweeper.sweep()
    assert ((await store.entities([dead]))[dead.name], (await store.entities([alive]))[alive.name]) == (0, 1)


async def test_what_a_rebuild_leaves_behind_is_deleted(definitions: Definitions):
    sweeper = Sweeper(definitions, definitions.store)
    before = all_time(definitions, "trade@1")
    await hold(definitions, before)
    await definitions.registry.rebuild({})
    await definitions.refresh()
    after = all_time(definitions, "trade@1")
    await hold(definitions, after)
    for _ in range(2):
        await sweeper.sweep()
    assert (await definitions.store.entities([before]))[before.name] == 0
    assert (await definitions.store.entities([after]))[after.name] == 1


async def test_rings_that_a_kept_version_shares_stay(definitions: Definitions):
    shared = all_time(definitions, "trade@1")
    longer = HOURLY.replace('"24h", "all")]', '"24h", "all"), count("24h")]')
    await define(definitions, longer)
    await hold(definitions, shared)
    await definitions.retire(["trade@1"])
    sweeper = Sweeper(definitions, definitions.store)
    for _ in range(2):
        await sweeper.sweep()
    assert all_time(definitions, "trade@2").name == shared.name
    assert (await definitions.store.entities([shared]))[shared.name] == 1
