"""Definitions change, and Redis is lost, while events stream in: every version counts every event once."""

import asyncio
import os
import secrets
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import numpy as np
import polars as pl
import pytest
from redis.asyncio import Redis

from embedded.ports import free_ports
from embedded.service import Service, ServiceProcess
from embedded.settings import StackSettings
from embedded.valkey import Valkey

DEADLINE_S = 60
SHOPS = 5
SLOTS = 24 + 1 + 1
FIRST = """
from contender.features import Entity, EventSource, FeatureView, count, sum

shop = Entity("shop", "shop")
sales = EventSource("SOURCE", {"shop": str, "items": int})
trade = FeatureView("trade", shop, sales, [sum("items", "24h"), count("24h")], hop="1h")
"""
WHOLE = 'whole = FeatureView("whole", None, sales, [count("all")], hop="1h")\n'
SECOND = FIRST.replace('hop="1h"', 'hop="30m"') + WHOLE
THIRD = SECOND + "\nrubbish = FeatureView('rubbish', shop, sales, [sum('nothing', '1h')], hop='1h')\n"


@dataclass
class Parts:
    """A feature service with one web process and two workers."""

    url: str
    source: str
    module: Path
    workers: list[Service]
    redis: str

    def define(self, text: str) -> None:
        self.module.write_text(text.replace("SOURCE", self.source))


@pytest.fixture
def parts(
    kafka_broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Parts]:
    for name, value in getattr(request, "param", {}).items():
        monkeypatch.setenv(name, value)
    source = f"sales_{secrets.token_hex(4)}"  # other tests leave events in the topic, and rings are filled from it
    module = tmp_path / "versioned_definitions.py"
    module.write_text(FIRST.replace("SOURCE", source))
    monkeypatch.setenv("CONTENDER_FEATURES", "versioned_definitions")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    valkey_port, *ports = free_ports(3)
    valkey = Valkey(tmp_path / "valkey", valkey_port)
    settings = [
        StackSettings(home=tmp_path, kafka_port=kafka_broker.port, valkey_port=valkey_port, feature_service_port=port)
        for port in ports
    ]
    web = Service(ServiceProcess("feature_service", "web"), settings[0])
    workers = [Service(ServiceProcess("feature_service", "worker"), own_settings) for own_settings in settings]
    processes = [valkey, web, *workers]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.wait_ready(DEADLINE_S)
        yield Parts(settings[0].url("feature_service"), source, module, workers, valkey.url)
    finally:
        for process in processes:
            process.kill()


@dataclass
class Sender:
    """Sends events all the time, and keeps its own books."""

    client: httpx.AsyncClient
    source: str
    chance: Random = field(default_factory=lambda: Random(5))
    counts: Counter = field(default_factory=Counter)
    sums: Counter = field(default_factory=Counter)
    frames: list[str] = field(default_factory=list)
    sent: list[dict] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while not self.done.is_set():
            await self.send()
            await asyncio.sleep(0.01)

    async def send(self) -> None:
        events = []
        for _ in range(20):
            shop, items = f"s{self.chance.randrange(SHOPS)}", self.chance.randint(-9, 9)
            self.counts[shop] += 1
            self.sums[shop] += items
            at = time.time() - self.chance.randrange(3600)
            events.append({"source": self.source, "time": at, "values": {"shop": shop, "items": items}})
        self.sent += events
        answer = await self.client.post("/v1/events", json={"events": events})
        assert answer.status_code == 202, answer.text
        self.frames += answer.json()["frame_ids"]

    async def more(self, frames: int) -> None:
        """Return once so many more frames were sent."""
        goal = len(self.frames) + frames
        async with asyncio.timeout(DEADLINE_S):
            while len(self.frames) < goal:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def sending(parts: Parts) -> AsyncIterator[Sender]:
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as client:
        sender = Sender(client, parts.source)
        task = asyncio.create_task(sender.run())
        try:
            yield sender
        finally:
            sender.done.set()
            await task


async def applied(sender: Sender) -> None:
    """Return once everything sent is in the features."""
    async with asyncio.timeout(DEADLINE_S):
        for frame in sender.frames:
            answer = await sender.client.get(f"/v1/frames/{frame}?wait_s=30")
            assert answer.json()["applied"], answer.text


async def complete(client: httpx.AsyncClient, *labels: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            views = {view["label"]: view["complete"] for view in (await client.get("/v1/definitions")).json()["views"]}
            if all(views.get(label) for label in labels):
                return
            await asyncio.sleep(0.05)


async def lost(client: httpx.AsyncClient, *labels: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            views = {view["label"]: view["complete"] for view in (await client.get("/v1/definitions")).json()["views"]}
            if not any(views[label] for label in labels):
                return
            await asyncio.sleep(0.02)


async def check(sender: Sender, view: str) -> None:
    shops = [f"s{number}" for number in range(SHOPS)]
    body = {"features": [f"{view}:sum_items_24h", f"{view}:count_24h"], "entities": {"shop": shops}}
    results = (await sender.client.post("/get-online-features", json=body)).json()["results"]
    assert results[2]["values"] == [sender.counts[shop] for shop in shops], view
    assert results[1]["values"] == [sender.sums[shop] for shop in shops], view


@pytest.mark.timeout(180)
async def test_a_changed_view_is_filled_beside_the_old_one_while_events_stream_in(parts: Parts):
    async with sending(parts) as sender:
        await sender.more(50)
        parts.define(SECOND)
        applying = await sender.client.post("/v1/definitions/apply", json={})
        assert applying.json() == {"added": ["trade@2", "whole@1"]}
        await sender.more(10)
        parts.workers[1].kill()  # whatever it was filling, the other one fills
        await complete(sender.client, "trade@1", "trade@2", "whole@1")
        await sender.more(25)
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as sender.client:
        await applied(sender)
        for view in ("trade@1", "trade@2", "trade"):
            await check(sender, view)
        body = {"features": ["whole:count_all"], "entities": {"shop": ["anyone"]}}
        response = (await sender.client.post("/get-online-features", json=body)).json()
        assert response["results"][1]["values"] == [sender.counts.total()]


@pytest.mark.timeout(180)
async def test_a_retired_version_never_comes_back_and_its_meaning_is_filled_anew(parts: Parts):
    async with sending(parts) as sender:
        await complete(sender.client, "trade@1")
        parts.define(SECOND)
        await sender.client.post("/v1/definitions/apply", json={})
        await complete(sender.client, "trade@2")
        retiring = await sender.client.post("/v1/definitions/retire", json={"versions": ["trade@1"]})
        assert (retiring.status_code, retiring.json()) == (200, {"retired": ["trade@1"]})
        await sender.more(75)  # what is sent now is not in the rings that trade@1 has left behind
        parts.define(FIRST)
        applying = await sender.client.post("/v1/definitions/apply", json={})
        assert applying.json() == {"added": ["trade@3"]}
        await complete(sender.client, "trade@2", "trade@3")
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as sender.client:
        await applied(sender)
        for view in ("trade@2", "trade@3", "trade"):
            await check(sender, view)
        body = {"features": ["trade@1:count_24h"], "entities": {"shop": ["s1"]}}
        refused = await sender.client.post("/get-online-features", json=body)
        assert refused.status_code == 422
        assert "versions of trade are trade@2, trade@3" in refused.json()["detail"]


@pytest.mark.timeout(180)
async def test_what_redis_has_lost_is_rebuilt_from_the_topic_while_events_stream_in(parts: Parts):
    async with sending(parts) as sender:
        await sender.more(50)
        async with Redis.from_url(parts.redis) as redis:
            await redis.flushdb()
        await sender.more(15)
        assert (await sender.client.post("/v1/definitions/rebuild")).status_code == 202
        await complete(sender.client, "trade@1")
        await sender.more(25)
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as sender.client:
        await applied(sender)
        await check(sender, "trade")


@pytest.mark.timeout(180)
async def test_what_redis_has_lost_is_noticed_and_filled_anew_without_being_asked(parts: Parts):
    async with sending(parts) as sender:
        await complete(sender.client, "trade@1")
        async with Redis.from_url(parts.redis) as redis:
            before = {key async for key in redis.scan_iter("f:{trade*")}
            await redis.flushdb()
            async with asyncio.timeout(DEADLINE_S):  # rings of other names take the place of those that were lost
                while not {key async for key in redis.scan_iter("f:{trade*")} - before:
                    await asyncio.sleep(0.02)
        await complete(sender.client, "trade@1")
        parts.workers[0].kill()
        await sender.more(25)
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as sender.client:
        await applied(sender)
        await check(sender, "trade")


@pytest.mark.timeout(180)
async def test_history_from_a_file_is_counted_once_across_the_seam(parts: Parts, tmp_path: Path):
    async with sending(parts) as sender:
        await sender.more(50)
        seam = time.time() - 1800  # the file overlaps with what lies in the topic
        before = [event for event in sender.sent if event["time"] <= seam]
        older = [
            {"time": seam - 60 * number, "values": {"shop": f"s{number % SHOPS}", "items": number}}
            for number in range(200)
        ]
        rows = [{"event_timestamp": event["time"], **event["values"]} for event in [*before, *older]]
        pl.DataFrame(rows).write_parquet(tmp_path / "history.parquet")
        sender.done.set()
        parts.define(SECOND.replace('"items": int}', f'"items": int}}, history={str(tmp_path / "history.parquet")!r}'))
        applying = await sender.client.post("/v1/definitions/apply", json={})
        assert applying.json() == {"added": ["trade@2", "whole@1"]}
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as sender.client:
        await complete(sender.client, "trade@1", "trade@2", "whole@1")
        await sender.send()
        await applied(sender)
        await check(sender, "trade@1")
        # What was late in the topic, older than the file's last event and sent after it was written, is nobody's.
        known = [event for event in sender.sent if event["time"] > seam] + before + older
        counts, sums = Counter(), Counter()
        for event in known:
            counts[event["values"]["shop"]] += 1
            sums[event["values"]["shop"]] += event["values"]["items"]
        sender.counts, sender.sums = counts, sums
        await check(sender, "trade@2")
        # What is lost comes back, files and all, though nothing is sent any more.
        async with Redis.from_url(parts.redis) as redis:
            await redis.flushdb()
        await lost(sender.client, "trade@1", "trade@2", "whole@1")
        await complete(sender.client, "trade@1", "trade@2", "whole@1")
        await check(sender, "trade@2")
        reports = await checked(sender)
        assert {report["compared"] for report in reports.values()} == {SHOPS, 1}
        assert not any(report["mismatch"] or report["missing"] or report["extra"] for report in reports.values()), (
            reports
        )


@pytest.mark.timeout(180)
async def test_a_check_beside_a_stream_finds_nothing_but_what_was_changed_behind_its_back(parts: Parts):
    async with sending(parts) as sender:
        await sender.more(50)  # its events lie anywhere in the last hour: many of them in tiles that are looked at
        parts.define(FIRST + WHOLE)
        await sender.client.post("/v1/definitions/apply", json={})
        await complete(sender.client, "whole@1")
        for _ in range(5):
            before = sender.counts.total()
            reports = await checked(sender)
            assert set(reports) == {"trade:sum_items_24h", "trade:count_24h", "whole:count_all"}
            assert {name: report["compared"] for name, report in reports.items()} == {
                name: 1 if name.startswith("whole") else SHOPS for name in reports
            }
            assert not any(report["mismatch"] or report["missing"] or report["extra"] for report in reports.values()), (
                reports
            )
            assert sender.counts.total() > before
        async with Redis.from_url(parts.redis) as redis:
            (wrong, gone, *_) = [key async for key in redis.scan_iter("f:{trade*")]
            held = np.frombuffer((await redis.get(wrong))[: 72 * SLOTS]).reshape(-1, 9)
            for tile in np.flatnonzero(held[:, 1]):
                await redis.setrange(wrong, 72 * int(tile) + 8, struct.pack("<d", 1e6))
            await redis.delete(gone)
        reports = await checked(sender)
        assert reports["trade:count_24h"]["mismatch"] == 2 / SHOPS  # of what is gone only what came since is counted
        assert reports["trade:count_24h"]["error_max"] > 9e5
        assert reports["whole:count_all"]["mismatch"] == 0
        metrics = (await sender.client.get("/metrics")).text
        assert 'contender_feature_consistency_ratio{feature="trade:count_24h",kind="mismatch"} 0.4' in metrics
        assert 'contender_feature_consistency_error{feature="trade:count_24h",of="max"}' in metrics
        assert "contender_feature_consistency_checked_at_seconds 1." in metrics


async def checked(sender: Sender) -> dict[str, dict]:
    answer = await sender.client.post("/v1/consistency?sample=1", json={})
    assert answer.status_code == 200, answer.text
    return {feature["feature"]: feature for feature in answer.json()["features"]}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "parts",
    [
        {
            "CONTENDER_CONSISTENCY_EVERY_S": "0.5",
            "CONTENDER_CONSISTENCY_SAMPLE": "1",
            "CONTENDER_ENTITIES_EVERY_S": "0.5",
        }
    ],
    indirect=True,
)
async def test_checks_and_counts_are_repeated_and_the_metrics_carry_their_last_results(parts: Parts):
    async with sending(parts) as sender:
        await sender.more(50)
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as client:
        sender.client = client
        await applied(sender)
        share = 'contender_feature_consistency_ratio{feature="trade:sum_items_24h",kind="missing"}'
        await wait_for_line(client, f"{share} 0.0")
        await wait_for_line(client, f'contender_feature_entities{{view="trade@1"}} {float(SHOPS)}')
        async with Redis.from_url(parts.redis) as redis:
            await redis.delete(*[key async for key in redis.scan_iter("f:{trade*")][:2])
        await wait_for_line(client, f"{share} {2 / SHOPS}")
        async with Redis.from_url(parts.redis) as redis:
            await redis.delete(*[key async for key in redis.scan_iter("f:{trade*")])
        await wait_for_line(client, f"{share} 1.0")


async def wait_for_line(client: httpx.AsyncClient, line: str) -> None:
    """Return once the metrics have a line."""
    async with asyncio.timeout(DEADLINE_S):
        while line not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.1)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("parts", [{"CONTENDER_ENTITIES_EVERY_S": "0.2"}], indirect=True)
async def test_the_status_tells_how_fresh_and_how_full_each_view_is(parts: Parts):
    async with sending(parts) as sender:
        await sender.more(50)
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as client:
        sender.client = client
        await applied(sender)
        await client.post("/v1/events", json={"events": [late(parts.source)]})
        async with asyncio.timeout(DEADLINE_S):
            while True:
                (trade,) = (status := (await client.get("/v1/features/status")).json())["views"]
                if trade["late"] and trade["events_per_s"] > 0 and trade["entities"] == SHOPS:
                    break
                await asyncio.sleep(0.2)
        assert (trade["label"], trade["complete"]) == ("trade@1", True)
        assert 0 <= trade["newest_event_age_s"] < 60
        assert trade["lag_s"] is None or trade["lag_s"] > 0
        assert trade["objective_s"] == 1.0
        assert not trade["behind"] or max(trade["lag_s"] or 0, status["waiting_s"]) > trade["objective_s"]
        assert (status["workers"], trade["late"]) == (2, 1)
        page = await client.get("/")
        assert page.status_code == 200
        assert "trade@1" in page.text
        worker = (await client.get(f"http://127.0.0.1:{parts.workers[0].port}/metrics")).text
    assert 'contender_feature_lag_seconds_count{view="trade"}' in worker


def late(source: str) -> dict:
    """An event whose tile's slot holds a newer tile: a lap of 24 hours, one of lateness and one more earlier."""
    return {"source": source, "time": time.time() - 26 * 3600, "values": {"shop": "s1", "items": 1}}


@pytest.mark.timeout(180)
async def test_definitions_that_can_not_be_leave_everything_as_it_was(parts: Parts):
    async with sending(parts) as sender:
        parts.define(THIRD)
        refused = await sender.client.post("/v1/definitions/apply", json={})
        assert refused.status_code == 422
        assert "versioned_definitions.py:" in refused.json()["detail"]
        assert "nothing" in refused.json()["detail"]
        await complete(sender.client, "trade@1")
    async with httpx.AsyncClient(base_url=parts.url, timeout=DEADLINE_S) as sender.client:
        await applied(sender)
        await check(sender, "trade")
        assert (await sender.client.get("/readyz")).status_code == 200
