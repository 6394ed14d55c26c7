"""What a process works by while modules change, and other processes apply, rebuild and retire."""

import sys
from pathlib import Path

import pytest

from services.feature_service.definitions import Definitions
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.registry import InMemoryRegistry

HEAD = """
from contender.features import Entity, EventSource, FeatureView, count, sum

shop = Entity("shop", "shop")
sales = EventSource("sales", {"shop": str, "items": int})
"""
HOURLY = HEAD + 'trade = FeatureView("trade", shop, sales, [sum("items", "24h")], hop="1h")\n'
FINER = HOURLY.replace('hop="1h"', 'hop="30m"')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "told_definitions.py").write_text(HOURLY)
    yield tmp_path
    for name in ("told_definitions", "told_windows"):
        sys.modules.pop(name, None)


async def opened(*registries: InMemoryRegistry) -> list[Definitions]:
    store = MemoryStore()
    opened_definitions = [Definitions("told_definitions", registry, store, 1) for registry in registries]
    for definitions in opened_definitions:
        await definitions.open()
    return opened_definitions


def write(folder: Path, text: str, name: str = "told_definitions") -> None:
    (folder / f"{name}.py").write_text(text)


def labels(definitions: Definitions) -> list[str]:
    return [version.label for version in definitions.current.catalogue.versions]


async def test_what_is_not_applied_is_not_taken_up(folder: Path):
    registry = InMemoryRegistry()
    web, worker = await opened(registry, registry)
    write(folder, FINER)
    await registry.rebuild({})
    await worker.refresh()
    assert (labels(worker), worker.fault) == (["trade@1"], "")
    assert worker.current.catalogue.views["trade"].hop == "1h"
    assert {ring.generation for ring in worker.current.rings.all()} == {1}
    assert await web.apply() == ["trade@2"]
    await worker.refresh()
    assert labels(worker) == ["trade@1", "trade@2"]
    assert worker.current.catalogue.newest("trade") == "trade@2"


async def test_a_module_that_is_broken_meanwhile_holds_nobody_up(folder: Path):
    registry = InMemoryRegistry()
    (worker,) = await opened(registry)
    write(folder, "nonsense(")
    await registry.rebuild({})
    await worker.refresh()
    assert (labels(worker), worker.fault) == (["trade@1"], "")
    assert {ring.generation for ring in worker.current.rings.all()} == {1}


async def test_releases_that_start_in_turn_register_each_meaning_once(folder: Path):
    registry = InMemoryRegistry()
    for text in (HOURLY, FINER, HOURLY, FINER):
        write(folder, text)
        (release,) = await opened(registry)
        assert release.current.catalogue.newest("trade") == ("trade@1" if text == HOURLY else "trade@2")
    assert [version.label for version in (await registry.load()).versions] == ["trade@1", "trade@2"]


async def test_a_definition_that_was_taken_out_or_renamed_is_gone(folder: Path):
    (web,) = await opened(InMemoryRegistry())
    write(
        folder,
        FINER.replace("trade =", "renamed =") + 'more = FeatureView("more", shop, sales, [count("1h")], hop="1h")\n',
    )
    assert await web.apply() == ["trade@2", "more@1"]
    write(folder, HOURLY)
    assert await web.apply() == []
    assert list(web.current.catalogue.views) == ["trade"]


async def test_modules_beside_the_definitions_are_read_again_too(folder: Path):
    write(folder, 'WINDOW = "24h"\n', "told_windows")
    write(folder, HOURLY.replace('"24h"', "WINDOW").replace("\nfrom", "\nfrom told_windows import WINDOW\nfrom", 1))
    (web,) = await opened(InMemoryRegistry())
    write(folder, 'WINDOW = "12h"\n', "told_windows")
    assert await web.apply() == ["trade@2"]


async def test_a_change_while_another_is_read_is_taken_up_the_next_time(folder: Path):
    class Changing(InMemoryRegistry):
        """Where another process registers something each time that somebody has read it."""

        async def load(self):
            state = await super().load()
            await self.rebuild({})
            return state

    (web,) = await opened(Changing())
    assert web.current.registered.revision < (await web.registry.load()).revision
