"""The check of served values beside a stream that goes on: what is right is not reported, and all that is wrong is."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import pytest
from prometheus_client import REGISTRY

from contender.contracts.feature_service import FeatureReport
from contender.features import count, distinct_count
from contender.features.catalogue import Catalogue
from contender.features.definitions import FeatureView
from contender.features.errors import TrainingSetError
from services.feature_service.consistency import Consistency
from services.feature_service.definitions import Definitions, DefinitionsSnapshot, definitions_for_tests
from services.feature_service.event_log import EventLog
from services.feature_service.frames import FramePosition, ReadFrame
from services.feature_service.handlers import Merging
from services.feature_service.history import cutover_of
from services.feature_service.ownership import PartitionOwnership
from services.feature_service.samples import Samples
from services.feature_service.store.memory import MemoryStore
from services.feature_service.store.protocol import RingQuery, RingsRead
from services.feature_service.store.registry import InMemoryRegistry, RegistryState
from shared.clock import FixedClock
from shared.events import EntityEvent
from shared.topic_reading import Offsets

NOW = 1_700_000_160.0  # one minute after the beginning of a tile of five
CHECKED = "contender_feature_consistency_checked_at_seconds"


def sale(before_s: float, items: int = 1, shop: str = "a") -> EntityEvent:
    return EntityEvent("sales", NOW - before_s, {"shop": shop, "items": items})


class BusyStore(MemoryStore):
    """Whenever it is read, it is written to first: `arriving` by one frame, into as many rings as `torn` says."""

    def __init__(self) -> None:
        super().__init__()
        self.stream: Stream | None = None
        self.arriving: list[EntityEvent] = []
        self.torn: int | None = None

    async def read(self, queries: Sequence[RingQuery]) -> RingsRead:
        if self.stream and self.arriving:
            rings = self.stream.definitions.current.rings.all()
            await self.stream.send(self.arriving.pop(), into={ring.name for ring in rings[: self.torn]})
        return await super().read(queries)


@dataclass
class Stream:
    """A topic of one partition, and the store that it is merged into."""

    definitions: Definitions
    store: BusyStore
    frames: list[ReadFrame] = field(default_factory=list)

    async def send(self, *events: EntityEvent, into: set[str] | None = None, frame_id: str = "") -> None:
        frame = ReadFrame(FramePosition(frame_id, 0, len(self.frames)), list(events))
        self.frames.append(frame)
        merging = Merging(self.definitions, self.store, PartitionOwnership(self.store), FixedClock(NOW), 300.0)
        await merging.merge_into([frame], lambda ring, _: into is None or ring.name in into)
        if into is None:
            await merging.settle([(frame.position, await merging.ownership.acquire(0))])

    async def ends(self) -> dict[int, int]:
        return {0: len(self.frames)}

    async def read(self, start: Offsets, ends: Offsets) -> AsyncIterator[Sequence[ReadFrame]]:
        for frame in self.frames[start.get(0, 0) : ends[0]]:
            yield [frame]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[EventLog]:
        yield self

    async def reports(self, share: float = 1.0) -> list[FeatureReport]:
        clock = FixedClock(NOW)
        return await Consistency(self.definitions, self.store, self.opened, clock, 1, 1.0, 300.0).check(share)

    async def check(self, share: float = 1.0) -> dict[str, FeatureReport]:
        return {report.feature.partition(":")[2]: report for report in await self.reports(share)}


def streamed(*views: FeatureView) -> Stream:
    store = BusyStore()
    store.stream = Stream(definitions_for_tests(Catalogue.of(views), store, InMemoryRegistry()), store)
    return store.stream


def wrong(reports: Iterable[FeatureReport]) -> list[FeatureReport]:
    return [report for report in reports if report.mismatch or report.missing or report.extra]


@pytest.fixture
def stream(trade: FeatureView) -> Stream:
    return streamed(trade)


async def test_what_lies_in_the_tile_that_has_just_begun_is_no_difference(stream: Stream):
    await stream.send(sale(600), sale(60, 2), sale(0.3, 3))
    reports = await stream.check()
    assert wrong(reports.values()) == []
    assert {report.compared for report in reports.values()} == {1}


@pytest.mark.parametrize("torn", [None, 0, 1, 2, 3])
async def test_what_arrives_before_and_between_the_reading_of_rings_is_no_difference(stream: Stream, torn: int | None):
    for number in range(4):
        await stream.send(*(sale(400 + 300 * n, number - n, f"s{number}") for n in range(5)))
    stream.store.arriving = [sale(700, 9, "s1"), sale(900, -9, "s2"), sale(1200, 9, "new")]
    stream.store.torn = torn
    assert wrong((await stream.check()).values()) == []
    assert len(stream.store.arriving) < 3


async def test_what_is_wrong_is_found_while_events_arrive(stream: Stream):
    await stream.send(sale(600, 2, "a"), sale(600, 3, "b"))
    stream.store.arriving = [sale(700, 4, "a")]
    (ring,) = [
        ring_of_sums
        for ring_of_sums in stream.definitions.current.rings.all()
        if ring_of_sums.layout.name == "sums" and ring_of_sums.where is None
    ]
    held = stream.store._held[ring.name, "a"]
    held.cells = {slot: [*cell[:6], cell[6] + 1, *cell[7:]] for slot, cell in held.cells.items()}
    assert {report.feature for report in wrong((await stream.check()).values())} == {
        f"trade:{kind}_items_{window}" for kind in ("sum", "mean") for window in ("1h", "all")
    }


async def test_what_the_store_lost_is_found_while_events_arrive(stream: Stream):
    await stream.send(sale(600, 2, "a"))
    for key in list(stream.store._held):
        del stream.store._held[key]
    stream.store.arriving = [sale(700, 4, "a")]
    reports = await stream.check()
    assert reports["count_1h"].mismatch == 1
    assert reports["sum_items_1h"].mismatch == 1


async def test_a_frame_that_was_sent_again_counts_once(stream: Stream):
    await stream.send(sale(600), frame_id="one")
    await stream.send(sale(600), frame_id="one")
    assert wrong((await stream.check()).values()) == []


async def test_an_event_ahead_of_the_clock_hides_what_it_has_replaced(trade: FeatureView):
    stream = streamed(replace(trade, features=[count("1m"), distinct_count("items", "all")], hop="1m", lateness="1m"))
    await stream.send(sale(100, shop="a"), sale(100, shop="b"))
    await stream.send(sale(-250, shop="a"))
    reports = await stream.check()
    assert wrong(reports.values()) == []
    assert reports["count_1m"].compared == 1


async def test_a_window_of_one_tile_is_compared_whole(trade: FeatureView):
    stream = streamed(replace(trade, features=[count("5m")]))
    await stream.send(sale(360), sale(61), sale(60))
    assert wrong((await stream.check()).values()) == []
    stream.store._held.clear()
    assert (await stream.check())["count_5m"].error_max == 2


async def test_every_kept_version_is_compared_under_its_own_name(trade: FeatureView):
    former = replace(trade, features=[count("1h")])
    known = Catalogue.of([former]).versions
    store = BusyStore()
    stream = store.stream = Stream(
        definitions_for_tests(Catalogue.of([trade], known), store, InMemoryRegistry()), store
    )
    await stream.send(sale(600), sale(700, shop="b"))
    (ring,) = stream.definitions.current.rings.of_view("trade@1")
    del store._held[ring.name, "b"]
    reports = await stream.reports()
    assert {report.feature for report in reports} == {
        "trade@1:count_1h",
        *(f"trade:{feature.name}" for feature in trade.aggregations),
    }
    assert [(report.feature, report.compared, report.mismatch) for report in wrong(reports)] == [
        ("trade@1:count_1h", 2, 0.5)
    ]
    labels = {"feature": "trade@1:count_1h", "kind": "mismatch"}
    assert REGISTRY.get_sample_value("contender_feature_consistency_ratio", labels) == 0.5
    await streamed(trade).check()
    assert REGISTRY.get_sample_value("contender_feature_consistency_ratio", labels) is None


@pytest.mark.parametrize(("former", "today"), [(int, str), (str, int)])
async def test_versions_whose_join_key_changed_its_type_are_compared_by_their_own_events(trade, former, today):
    views = [
        replace(trade, source=replace(trade.source, schema={"shop": kind, "items": int}), features=[count("1h")])
        for kind in (former, today)
    ]
    store = BusyStore()
    definitions = definitions_for_tests(
        Catalogue.of(views[1:], Catalogue.of(views[:1]).versions), store, InMemoryRegistry()
    )
    stream = store.stream = Stream(definitions, store)
    sent = [EntityEvent("sales", NOW - 600, {"shop": shop, "items": 1}) for shop in (17, "17", "a")]
    await stream.send(*sent)
    reports = await stream.reports()
    assert wrong(reports) == []
    assert sorted(report.compared for report in reports) == [1, 2]


async def test_a_check_without_entities_compares_nothing(stream: Stream):
    reports = await stream.check()
    assert {(report.compared, report.mismatch) for report in reports.values()} == {(0, 0.0)}
    await stream.send(sale(600))
    assert {report.compared for report in (await stream.check(0.000001)).values()} == {0}


async def test_a_view_without_an_entity_is_looked_at_however_small_the_sample(trade: FeatureView):
    stream = streamed(replace(trade, entity=None))
    assert {report.compared for report in (await stream.check(0.000001)).values()} == {1}
    await stream.send(sale(600, shop="a"), sale(600, shop="b"))
    assert wrong((reports := await stream.check(0.000001)).values()) == []
    assert {report.compared for report in reports.values()} == {1}
    stream.store._held.clear()
    assert wrong((await stream.check(0.000001)).values())


async def test_only_events_of_sampled_entities_are_kept(stream: Stream):
    for number in range(400):
        await stream.send(sale(600, shop=f"s{number}"), frame_id=str(number))
    samples = Samples.of(stream.definitions.current, share=0.1, at=NOW, now=NOW, future_s=0.0)
    samples.take(stream.frames)
    (sample,) = samples.views
    assert 20 < len(sample.entities) == len(sample.events) == len(samples._seen) < 60


async def test_events_before_every_window_only_tell_that_an_entity_is_there(trade: FeatureView):
    stream = streamed(replace(trade, features=[count("1h")]))
    await stream.send(sale(7200))
    samples = Samples.of(stream.definitions.current, share=1.0, at=NOW, now=NOW, future_s=0.0)
    samples.take(stream.frames)
    (sample,) = samples.views
    assert (list(sample.entities), sample.events) == (["a"], [])
    assert (await stream.check())["count_1h"].compared == 1


async def test_up_to_the_seam_files_count_and_after_it_the_topic(trade: FeatureView, tmp_path: Path):
    old = [{"event_timestamp": NOW - 3600 * n, "shop": "a", "items": n} for n in range(1, 4)]
    pl.DataFrame(old).write_parquet(tmp_path / "sales.parquet")
    source = replace(trade.source, history=str(tmp_path / "sales.parquet"))
    stream = streamed(replace(trade, source=source))
    catalogue = stream.definitions.current.catalogue
    seam = cutover_of(source, NOW)
    assert seam is not None
    registered = RegistryState(list(catalogue.versions), {"trade@1": seam})
    stream.definitions._current = DefinitionsSnapshot.of(catalogue, registered, None)
    merging = Merging(stream.definitions, stream.store, PartitionOwnership(stream.store), FixedClock(NOW), 300.0)
    events = [EntityEvent("sales", sale.pop("event_timestamp"), sale) for sale in old]
    await merging.merge_into([ReadFrame(FramePosition("", -1, 0), events)], lambda *_: True)
    await stream.send(sale(7200, 9), sale(600, 5))  # the first lies before the seam: nobody counts it
    stream.store.arriving = [sale(700, 3)]
    reports = await stream.check()
    assert wrong(reports.values()) == []
    assert reports["count_all"].compared == 1


async def test_a_former_version_whose_files_are_gone_is_left_out_and_one_of_today_is_not(trade, tmp_path: Path):
    files = [tmp_path / name for name in ("former.parquet", "today.parquet")]
    for file in files:
        pl.DataFrame({"event_timestamp": [NOW - 3600], "shop": ["a"], "items": [1]}).write_parquet(file)
    former, today = (replace(trade.source, history=str(file)) for file in files)
    known = Catalogue.of([replace(trade, source=former, features=[count("1h")])]).versions
    # The former version reads a column that today's source has no longer.
    wider = replace(today, schema={"shop": str, "units": int})
    pl.DataFrame({"event_timestamp": [NOW - 3600], "shop": ["a"], "units": [1]}).write_parquet(files[1])
    stream = streamed(replace(trade, source=wider, features=[count("1h")]))
    catalogue = Catalogue.of([replace(trade, source=wider, features=[count("1h")])], known)
    cutovers = {"trade@1": cutover_of(former, NOW), "trade@2": cutover_of(wider, NOW)}
    stream.definitions._current = DefinitionsSnapshot.of(
        catalogue, RegistryState(list(catalogue.versions), cutovers), None
    )
    assert [report.feature for report in await stream.reports()] == ["trade@1:count_1h", "trade:count_1h"]
    files[0].unlink()
    assert [report.feature for report in await stream.reports()] == ["trade:count_1h"]
    files[1].unlink()
    with pytest.raises(TrainingSetError):
        await stream.reports()


async def test_the_metrics_say_when_the_last_check_ended_that_did_not_fail(stream: Stream):
    await stream.check()
    assert REGISTRY.get_sample_value(CHECKED) == NOW

    @asynccontextmanager
    async def away() -> AsyncIterator[EventLog]:
        raise TimeoutError
        yield

    consistency = Consistency(stream.definitions, stream.store, away, FixedClock(NOW + 9), 1, 1.0, 300.0)
    with pytest.raises(TimeoutError):
        await consistency.check(1.0)
    assert REGISTRY.get_sample_value(CHECKED) == NOW
    consistency.log = stream.opened
    await consistency.check(1.0)
    assert REGISTRY.get_sample_value(CHECKED) == NOW + 9
