"""An aggregation kind is one module and its line among the kinds: nothing else of the product is touched."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOY = '''
"""The range of a column: its greatest value less its least."""

from math import inf

import numpy as np

from contender.features.folding import folded
from contender.features.kinds.kind import OfColumn
from contender.features.layouts.sums import HIGH, LOW
from contender.features.spans import Spans
from contender.features.tiles import Floats
from contender.features.windows import Window


class Spread(OfColumn):
    """The greatest value of a column less its least."""

    kind = "toy_range"

    def of_window(self, window: Window) -> Floats:
        """From the extremes of the cells."""
        high, low = window.field_where(HIGH, -inf).max(axis=1), window.field_where(LOW, inf).min(axis=1)
        return np.where(np.isfinite(high), high - low, 0.0)

    def offline(self, values: Floats, spans: Spans) -> Floats:
        """From the extremes of the values."""
        return folded(values, spans, np.maximum, -inf) - folded(values, spans, np.minimum, inf)


toy_range = Spread.over
'''
PROBE = """
import asyncio
import sys
from pathlib import Path

import numpy as np
import polars as pl
from redis.asyncio import Redis

import contender
import services
from contender.features import Entity, EventSource, FeatureView, toy_range
from contender.features.catalogue import Catalogue
from contender.features.documents import view_document, view_of
from contender.features.offline import build_training_set
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.definitions import definitions_for_tests
from services.feature_service.handlers import Merging
from services.feature_service.online import Question
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.redis import RedisStore
from services.feature_service.store.registry import InMemoryRegistry
from shared.clock import FixedClock
from shared.events import EntityEvent

assert {Path(one.__path__[0]).parent for one in (contender, services)} == {Path.cwd()}
SALES = EventSource("sales", {"shop": str, "items": int})
VIEW = FeatureView("trade", Entity("shop", "shop"), SALES, [toy_range("items", "1m", "all")], hop="10s", lateness="5m")
CATALOGUE = Catalogue.of([VIEW])
FEATURES = CATALOGUE.features(["trade:toy_range_items_1m", "trade:toy_range_items_all"])
EVENTS = [(7.0 * number, "ab"[number % 3 == 0], number * number % 11) for number in range(60)]
NOW = 400.0


async def online(store):
    definitions = definitions_for_tests(CATALOGUE, store, InMemoryRegistry())
    merging = Merging(definitions, store, PartitionOwnership(store), FixedClock(NOW), 100.0)
    for offset, (time, shop, items) in enumerate(EVENTS):
        if time < NOW:
            event = EntityEvent("sales", time, {"shop": shop, "items": items})
            await merging.merge_into([ReadFrame(FramePosition("", 0, offset), [event])], lambda *_: True)
    question = Question(definitions.current, FEATURES, {"shop": ["a", "b", "c"]}, np.full(3, NOW), 1)
    return [column.values for column in await question.answer(store)]


async def redis(url):
    async with Redis.from_url(url) as client:
        await client.flushdb()
        return await online(RedisStore(client, seen_ttl_s=60))


rows = pl.DataFrame({"time": [NOW] * 3, "shop": ["a", "b", "c"]})
history = pl.DataFrame(EVENTS, schema=["event_timestamp", "shop", "items"], orient="row")
built = build_training_set(VIEW, rows, {"sales": history})
offline = [built[feature.column].to_list() for feature in FEATURES]
assert offline == asyncio.run(online(MemoryStore())) == asyncio.run(redis(sys.argv[1])), offline
assert offline[1][2] is None and all(isinstance(value, int) for value in offline[1][:2]), offline
assert view_of(view_document(VIEW)).aggregations == VIEW.aggregations
"""
DEFINITIONS = """
from contender.features import Entity, EventSource, FeatureView, toy_range

sales = EventSource("sales", {"shop": str, "items": int})
trade = FeatureView("trade", Entity("shop", "shop"), sales, [toy_range("items", "1m")], hop="10s", lateness="10s")
"""


def test_a_toy_kind_needs_one_module_and_one_line(valkey: str, tmp_path: Path):
    for package in ("contender", "services", "shared", "embedded"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    kinds = tmp_path / "contender" / "features" / "kinds"
    (kinds / "toy_range.py").write_text(TOY)
    listed = (kinds / "__init__.py").read_text()
    added = 'from contender.features.kinds.toy_range import toy_range\n\n__all__ = (\n    "toy_range",\n'
    assert listed.count("\n__all__ = (\n") == 1
    (kinds / "__init__.py").write_text(listed.replace("\n__all__ = (\n", added))
    run(tmp_path, "-c", PROBE, valkey.rsplit("/", 1)[0] + "/5")
    (tmp_path / "own.py").write_text(DEFINITIONS)
    shown = run(tmp_path, "-m", "contender.cli", "features", "show", "trade", "own.py")
    assert "toy_range of items" in shown
    # 6 tiles, one of lateness and the one that begins, of 72 bytes each, and 128 of offsets.
    assert f"An entity takes {8 * 72 + 128:,} bytes" in shown


def run(folder: Path, *arguments: str) -> str:
    """What the interpreter prints, with that folder first on the path."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(folder)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


def test_features_are_imported_without_what_training_sets_need():
    heavy = ("polars", "pandas", "sklearn", "redis", "fastapi")
    probe = (
        f"import sys, contender.features, contender.features.catalogue; print([m for m in {heavy} if m in sys.modules])"
    )
    assert run(ROOT, "-c", probe).strip() == "[]"
