"""The judge: it looks where something may have changed, and keeps what it finds once."""

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from contender.contracts.experiments import ExperimentRevision, VariantAllocation
from contender.contracts.feedback_service import (
    Arrival,
    Counts,
    Health,
    Results,
    Split,
    VariantResult,
    Verdict,
    VerdictEvent,
)
from services.feedback_service.domain.memory import Memory
from services.feedback_service.domain.results import Look
from services.feedback_service.domain.snapshots import (
    CohortSnapshot,
    ExperimentUpdate,
    GroupHeader,
    GroupSnapshot,
    PartitionSnapshot,
    PartitionStatus,
    SumsSnapshot,
)
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.experiments import InMemoryExperiments
from services.feedback_service.judging import (
    LAST_DAY_S,
    LONGEST_SETTLING_S,
    LOOKS_AT_ONCE,
    SETTLING_S,
    UNANNOUNCED_S,
    Judge,
)
from services.feedback_service.store import InMemorySnapshots
from services.feedback_service.verdict_store import InMemoryVerdictStore, KeptMemory, Vintage, open_sql_store
from shared.clock import FixedClock
from shared.errors import Unavailable

DECIDES_AT = 300
"""Rows from which on the plain looks of these tests find a verdict; below, they remember the least p alone."""


def revision(name: str = "e", **changes: object) -> ExperimentRevision:
    whole = ExperimentRevision(
        name=name,
        model="m",
        revision=1,
        epoch=1,
        status="running",
        seed="s",
        champion="a",
        variants=[VariantAllocation("a", "v1", 0.5), VariantAllocation("b", "v2", 0.5)],
        metric="log_loss",
        window_s=60.0,
        changed_at=1000.0,
    )
    return replace(whole, **changes)


def results_of_rows(name: str, rows: int, matured: int, verdict: Verdict) -> Results:
    variant = VariantResult(
        name="b",
        version="v2",
        champion=False,
        n=rows,
        labelled=0,
        matured=matured,
        matured_labelled=0,
        corrections=0,
        late=0,
        refused=0,
        duplicates=0,
        fallbacks=0,
        degraded=0,
        metrics={},
        live={},
    )
    return Results(
        experiment=name,
        status="running",
        model="m",
        metric="log_loss",
        champion="a",
        alpha=0.05,
        missing="excluded",
        window_s=60.0,
        watermark=None,
        variants=[variant],
        effects={},
        split=Split(1.0, {}),
        arrival=Arrival(None),
        verdict=verdict,
        health=Health(0, 0, 0, 0, 0, 0, 0),
        totals=Counts(),
        offsets={},
        updated_at=None,
        verdicts=[verdict],
    )


class PlainLooks:
    """Looks by the number of rows alone, and a list of those made: name, rows and what was remembered."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, Memory]] = []
        self.matured_share = 1.0
        self.faulty: set[str] = set()

    def __call__(
        self,
        name: str,
        revision: ExperimentRevision | None,
        snapshots: Sequence[PartitionSnapshot],
        now: float,
        memory: Memory,
    ) -> Look | None:
        cohorts = [cohort for snapshot in snapshots for group in snapshot.groups for cohort in group.cohorts]
        rows = sum(cohort.counts.predictions for cohort in cohorts)
        self.made.append((name, rows, memory))
        if name in self.faulty:
            raise ArithmeticError(name)
        memory = replace(memory, split_p=min(memory.split_p, 1.0 / (1 + rows)))
        verdict = memory.verdict_on("b")
        if verdict is None and rows >= DECIDES_AT:
            verdict = VerdictEvent(
                experiment=name,
                number=len(memory.events) + 1,
                kind="decided",
                challenger="b",
                status="challenger better",
                sentence=f"b is better after {rows} rows",
                at=now,
                model="m",
                metric="log_loss",
                revision=revision.revision if revision else 0,
            )
            memory = replace(memory, events=[*memory.events, verdict])
        shown = Verdict("collecting", f"{rows} rows", "b")
        if verdict is not None:
            shown = Verdict(verdict.status, verdict.sentence, "b", verdict.at)
        return Look(results_of_rows(name, rows, int(rows * self.matured_share), shown), memory)

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.made]


class Topic:
    """Takes events unless Kafka is away."""

    def __init__(self) -> None:
        self.events: list[VerdictEvent] = []
        self.is_away = False

    async def send(self, event: VerdictEvent) -> None:
        if self.is_away:
            raise Unavailable("Kafka is away")
        self.events.append(event)


class World:
    """What judges share: snapshots, experiments, the store of verdicts, the topic and the time."""

    def __init__(self) -> None:
        self.snapshots = InMemorySnapshots()
        self.experiments = InMemoryExperiments()
        self.verdicts = InMemoryVerdictStore()
        self.topic = Topic()
        self.looks = PlainLooks()
        self.clock = FixedClock(10_000.0)
        self.is_in_charge = True

    def judge(self, **changes: object) -> Judge:
        parts = {
            "snapshots": self.snapshots,
            "experiments": self.experiments,
            "verdicts": self.verdicts,
            "send": self.topic.send,
            "clock": self.clock,
            "is_in_charge": lambda: self.is_in_charge,
            "partitions": 1,
            "vintage_interval_s": 3600.0,
            "make_look": self.looks,
        }
        return Judge(**{**parts, **changes})

    async def publish(self, rows: int, name: str = "e", watermark: float = 1.0) -> None:
        cohort = CohortSnapshot(0.0, Counts(predictions=rows), {}, SumsSnapshot(), SumsSnapshot())
        group = GroupSnapshot(
            experiment=name,
            epoch=1,
            variant="b",
            task="binary",
            window_s=60.0,
            missing="excluded",
            model="m",
            versions=["v2"],
            probability=0.5,
            watermark=watermark,
            cohorts=[],
        )
        header = GroupHeader(group, ["0:g"])
        await self.snapshots.write(ExperimentUpdate(0, name, [header], {"0:g": cohort}, [], complete=True))
        now = self.clock.now()
        await self.snapshots.write_status(PartitionStatus(0, {}, Counts(), now, caught_up_at=now))


@pytest.fixture
def world() -> World:
    world = World()
    world.experiments.put(revision())
    return world


async def test_a_verdict_is_found_once_and_kept_however_the_rows_go_on(world: World):
    judge = world.judge()
    for rows in (100, 300, 200, 900):
        await world.publish(rows)
        await judge.look()
        world.clock.advance(2.0)
    (event,) = await world.verdicts.events("e")
    assert (event.number, event.sentence, event.at) == (1, "b is better after 300 rows", 10_002.0)
    assert world.topic.events == [event]
    assert (await world.verdicts.memory("e")).memory.split_p == pytest.approx(1 / 901)


async def test_the_results_of_a_verdict_are_kept_as_of_its_time(world: World):
    judge = world.judge()
    await world.publish(100)
    await judge.look()
    first = await world.verdicts.vintage("e", 10_000.0)
    world.clock.advance(7.0)
    await world.publish(300)
    await judge.look()
    (event,) = await world.verdicts.events("e")
    kept = await world.verdicts.vintage("e", event.at)
    assert kept is not None
    assert first is not None
    assert b"b is better after 300 rows" in kept
    world.clock.advance(7.0)
    await world.publish(350)
    await judge.look()
    assert await world.verdicts.vintage("e", event.at) == kept
    assert await world.verdicts.vintage("e", 10_006.0) == first
    assert await world.verdicts.vintage("e", world.clock.now()) == kept


@pytest.mark.parametrize("status", ["running", "paused", "decided"])
async def test_an_experiment_that_is_not_over_gets_a_vintage_each_interval(world: World, status):
    judge = world.judge(vintage_interval_s=100.0)
    world.experiments.put(revision(revision=2, status=status))
    kept = set()
    for rows in range(10):
        await world.publish(rows)
        await judge.look()
        kept.add((await world.verdicts.memory("e")).vintage_at)
        world.clock.advance(40.0)
    assert kept == {10_000.0, 10_120.0, 10_240.0, 10_360.0}


async def test_what_has_not_changed_is_not_looked_at_again(world: World):
    judge = world.judge()
    await world.publish(100)
    for _ in range(3):
        await judge.look()
        world.clock.advance(2.0)
    assert len(world.looks.made) == 1
    world.experiments.put(revision(revision=2))
    await judge.look()
    assert len(world.looks.made) == 2
    assert (await world.verdicts.memory("e")).version == 1  # nothing else to remember


async def test_an_idle_experiment_is_looked_at_once_a_day_and_for_its_last_vintage(world: World):
    judge = world.judge()
    for tick in range(2 * 24 * 60):
        await world.publish(100 if tick < 5 else 101, watermark=world.clock.now())
        await judge.look()
        world.clock.advance(60.0)
    rows = [seen for _, seen, _ in world.looks.made]
    assert rows == [100, 101, 101, 101, 101]  # the first, what came, the vintage of that an hour later, and two days
    assert b"101 rows" in (await world.verdicts.vintage("e", 10_000.0 + 3600.0) or b"")


async def test_a_new_process_goes_on_from_what_is_kept(world: World, tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    for rows in (300, 500):
        async with open_sql_store(url, 10.0) as verdicts:
            await world.publish(rows)
            await world.judge(verdicts=verdicts).look()
            (event,) = await verdicts.events("e")
            assert event.sentence == "b is better after 300 rows"
        world.clock.advance(2.0)
    assert world.topic.events == [event]
    assert [memory.events for _, _, memory in world.looks.made] == [[], [event]]


class Rival(InMemoryVerdictStore):
    """A store in which another worker's look is kept between reading and writing, as often as is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rivals = 1

    async def write(self, experiment: str, read: KeptMemory, memory: Memory, vintage: Vintage | None = None) -> bool:
        if self.rivals:
            self.rivals -= 1
            other = replace(memory, split_p=1e-9, events=[])
            assert await super().write(experiment, read, other)
        return await super().write(experiment, read, memory, vintage)


async def test_a_look_that_comes_second_is_dropped_and_made_again_on_what_the_first_has_left(world: World):
    world.verdicts = Rival()
    judge = world.judge()
    await world.publish(300)
    await judge.look()
    assert (await world.verdicts.events("e"), world.topic.events) == ([], [])
    await judge.look()
    (event,) = await world.verdicts.events("e")
    assert world.topic.events == [event]
    kept = await world.verdicts.memory("e")
    assert (kept.version, kept.memory.split_p, kept.memory.events) == (2, 1e-9, [event])


async def test_two_judges_at_once_find_a_verdict_once(world: World):
    judges = [world.judge(), world.judge()]
    for rows in (100, 300, 400):
        await world.publish(rows)
        for judge in judges:
            await judge.look()
        world.clock.advance(2.0)
    assert len(await world.verdicts.events("e")) == 1
    assert world.topic.events == await world.verdicts.events("e")


async def test_events_wait_for_kafka_and_are_sent_in_order(world: World):
    world.experiments.put(revision("f"))
    judge = world.judge()
    world.topic.is_away = True
    await world.publish(300)
    with pytest.raises(Unavailable):
        await judge.look()
    assert len(await world.verdicts.unsent(10)) == 1
    world.clock.advance(2.0)
    await world.publish(300, "f")
    with pytest.raises(Unavailable):
        await judge.look()
    world.topic.is_away = False
    await world.judge().look()  # another process
    assert [event.experiment for event in world.topic.events] == ["e", "f"]
    assert await world.verdicts.unsent(10) == []


async def test_nothing_is_looked_at_by_a_process_that_is_not_in_charge(world: World):
    world.is_in_charge = False
    await world.publish(300)
    judge = world.judge()
    await judge.look()
    assert world.looks.made == []
    world.is_in_charge = True
    await judge.look()
    assert len(world.topic.events) == 1


async def test_a_process_that_loses_its_charge_during_a_look_keeps_nothing_of_it(world: World):
    def look_and_lose(*arguments) -> Look | None:
        world.is_in_charge = False
        return world.looks(*arguments)

    await world.publish(300)
    await world.judge(make_look=look_and_lose).look()
    assert await world.verdicts.events("e") == []
    assert await world.verdicts.memory("e") == KeptMemory()


async def test_nothing_is_looked_at_before_the_announced_experiments_are_known(world: World):
    world.experiments.is_complete = False
    await world.publish(300)
    judge = world.judge()
    await judge.look()
    assert world.looks.made == []
    world.experiments.is_complete = True
    await judge.look()
    assert world.looks.names == ["e"]


async def test_an_experiment_that_is_not_announced_is_looked_at_once_it_could_have_been(world: World):
    judge = world.judge()
    await world.publish(300, "replayed")
    await world.publish(300, "a\0b")  # no database takes this name
    await judge.look()
    world.clock.advance(UNANNOUNCED_S)
    await judge.look()
    assert "replayed" in world.looks.names
    assert "a\0b" not in world.looks.names
    assert [event.revision for event in await world.verdicts.events("replayed")] == [0]


async def test_no_look_is_made_while_a_partition_has_published_nothing(world: World):
    judge = world.judge(partitions=2)
    await world.publish(300)
    await judge.look()
    assert world.looks.made == []
    await world.snapshots.write_status(PartitionStatus(1, {}, Counts(), 1.0))
    await judge.look()
    assert len(world.topic.events) == 1


async def test_a_draft_is_not_looked_at(world: World):
    world.experiments.put(revision("d", status="draft"))
    await world.judge().look()
    assert "d" not in world.looks.names


async def test_many_experiments_take_turns(world: World):
    names = [f"e-{number:02}" for number in range(2 * LOOKS_AT_ONCE + 3)]
    for name in names:
        world.experiments.put(revision(name))
        await world.publish(10, name)
    judge = world.judge()
    for tick in range(1, 4):
        await judge.look()
        assert len(world.looks.made) <= tick * LOOKS_AT_ONCE
    assert set(world.looks.names) == {"e", *names}


async def test_an_experiment_that_changes_does_not_wait_for_those_that_do_not(world: World):
    names = [f"e-{number:03}" for number in range(5 * LOOKS_AT_ONCE)]
    for name in names:
        world.experiments.put(revision(name))
        await world.publish(10, name)
    judge = world.judge()
    for _ in range(6):
        await judge.look()
    assert set(world.looks.names) == {"e", *names}
    for name in (names[7], names[33]):
        world.clock.advance(2.0)
        await world.publish(DECIDES_AT, name)
        await judge.look()
        assert world.topic.events[-1].experiment == name


async def test_an_experiment_that_fails_keeps_no_other_from_its_verdict(world: World, caplog):
    world.experiments.put(revision("faulty"))
    world.looks.faulty.add("faulty")
    judge = world.judge()
    for rows in (300, 301, 302):
        await world.publish(rows)
        await judge.look()
    assert [event.experiment for event in world.topic.events] == ["e"]
    assert world.looks.names.count("faulty") == 3


class Away(InMemorySnapshots):
    """Snapshots that can't be read at first."""

    is_away = True

    async def read(self, experiment: str) -> list[PartitionSnapshot]:
        if self.is_away:
            raise ResultsUnavailable("away")
        return await super().read(experiment)


async def test_a_store_that_is_away_is_an_error_of_the_tick_and_the_next_one_goes_on(world: World):
    world.snapshots = Away()
    judge = world.judge()
    await world.publish(300)
    with pytest.raises(ResultsUnavailable):
        await judge.look()
    world.snapshots.is_away = False
    await judge.look()
    assert len(world.topic.events) == 1


def stopped(number: int = 2, cycle_days: int = 0) -> ExperimentRevision:
    return revision(revision=number, status="stopped", stopped_at=10_000.0, cycle_days=cycle_days)


async def looks_made(world: World, judge: Judge, rows: Callable[[int], int], ticks: int, every_s: float) -> int:
    before = len(world.looks.made)
    for tick in range(ticks):
        await world.publish(rows(tick))
        await judge.look()
        world.clock.advance(every_s)
    return len(world.looks.made) - before


async def test_a_stopped_experiment_is_looked_at_until_its_rows_have_matured(world: World):
    judge = world.judge()
    world.experiments.put(stopped())
    world.looks.matured_share = 0.5
    assert await looks_made(world, judge, lambda tick: 10 + tick, 3, 60.0 + SETTLING_S) == 3
    world.looks.matured_share = 1.0
    assert await looks_made(world, judge, lambda tick: 20 + tick, 5, 10.0) == 1
    last = (await world.verdicts.memory("e")).vintage_at
    assert last is not None
    assert await world.verdicts.vintage("e", 1e12) == await world.verdicts.vintage("e", last)
    assert b"20 rows" in (await world.verdicts.vintage("e", last) or b"")


async def test_a_stopped_experiment_is_looked_at_until_its_last_day_may_be_whole(world: World):
    judge = world.judge()
    world.experiments.put(stopped(cycle_days=7))
    assert await looks_made(world, judge, lambda tick: 10 + tick, 5, 30_000.0) == 5
    world.clock.at = 10_060.0 + LAST_DAY_S + 1.0
    assert await looks_made(world, judge, lambda tick: 20 + tick, 5, 1.0) == 1


async def test_a_stopped_experiment_without_news_is_settled_all_the_same(world: World):
    judge = world.judge()
    world.experiments.put(stopped())
    assert await looks_made(world, judge, lambda _: 10, 20, 10.0) == 2  # at once, and for its last vintage
    assert (await world.verdicts.memory("e")).vintage_at == pytest.approx(10_000.0 + 60.0 + SETTLING_S)


async def test_rows_that_are_on_their_way_when_an_experiment_stops_are_waited_for(world: World):
    judge = world.judge()
    world.experiments.put(stopped())
    assert await looks_made(world, judge, lambda tick: 10 + tick, 5, 10.0) == 5


async def test_a_stopped_experiment_with_a_verdict_is_not_looked_at_again(world: World):
    judge = world.judge()
    world.experiments.put(stopped())
    assert await looks_made(world, judge, lambda tick: 300 + tick, 5, 10.0) == 1
    world.experiments.put(stopped(3))  # something was changed about it
    assert await looks_made(world, judge, lambda tick: 400 + tick, 5, 10.0) == 1


async def test_a_stopped_experiment_whose_rows_never_mature_is_given_up(world: World):
    world.experiments.put(stopped())
    world.looks.matured_share = 0.0
    world.clock.advance(60.0 + LONGEST_SETTLING_S + 1.0)
    judge = world.judge()
    assert await looks_made(world, judge, lambda tick: 10 + tick, 5, 10.0) == 1
