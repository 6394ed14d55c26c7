"""One contract for the stores of verdicts: in memory, in SQLite, and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from contender.contracts.feedback_service import Effect, VerdictEvent
from services.feedback_service.domain.memory import ChallengerMemory, Memory, RunningSequence
from services.feedback_service.errors import ResultsUnavailable
from services.feedback_service.verdict_store import (
    NAME_CHARACTERS,
    InMemoryVerdictStore,
    KeptMemory,
    VerdictStore,
    Vintage,
    is_storable,
    open_sql_store,
)
from tests.contract.databases import empty_database

NAME = 'price <script> "ä'
LOOKED = Memory(
    {"b": ChallengerMemory({"log_loss": RunningSequence(high=0.25, p=0.5)}, checks={"arrival": 0.75})}, 0.125
)


def event(number: int, experiment: str = NAME, **changes: object) -> VerdictEvent:
    whole = VerdictEvent(
        experiment=experiment,
        number=number,
        kind="decided",
        challenger="b",
        status="challenger better",
        sentence="b is better than ä.",
        at=1_700_000_000.25,
        model="m",
        metric="log_loss",
        revision=3,
        effect=Effect(-0.5, -0.75, None, 0.001, 400, better=True, lower_is_better=True),
        whole_days=7,
        offsets={"predictions": {"0": 5}},
    )
    return replace(whole, **changes)


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await empty_database(request.param, request, tmp_path)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VerdictStore]:
    if request.param == "memory":
        yield InMemoryVerdictStore()
        return
    async with open_sql_store(await empty_database(request.param, request, tmp_path), 10.0) as store:
        yield store


async def keep(store: VerdictStore, memory: Memory, vintage: Vintage | None = None, experiment: str = NAME) -> bool:
    return await store.write(experiment, await store.memory(experiment), memory, vintage)


async def test_nothing_is_there_at_first(store: VerdictStore):
    assert await store.memory(NAME) == KeptMemory()
    assert await store.events(NAME) == await store.unsent(10) == []
    assert await store.vintage(NAME, 1e12) is None


async def test_a_memory_is_read_as_it_was_written_and_each_write_has_the_next_version(store: VerdictStore):
    assert await keep(store, LOOKED)
    assert await store.memory(NAME) == KeptMemory(LOOKED, 1)
    later = replace(LOOKED, split_p=0.0625)
    assert await keep(store, later)
    assert await store.memory(NAME) == KeptMemory(later, 2)
    assert await store.memory("another") == KeptMemory()


async def test_of_two_looks_at_one_memory_the_first_is_kept_whole_and_nothing_of_the_second(store: VerdictStore):
    for version in range(3):
        read = await store.memory(NAME)
        known = read.memory.events
        first = Memory(events=[*known, event(version + 1, sentence="first")])
        second = Memory(events=[*known, event(version + 1, sentence="second")])
        assert await store.write(NAME, read, first, Vintage(10.0 * version, b"first"))
        assert not await store.write(NAME, read, second, Vintage(10.0 * version + 1, b"second"))
        assert await store.memory(NAME) == KeptMemory(first, version + 1, 10.0 * version)
    assert [known.sentence for known in await store.events(NAME)] == ["first"] * 3
    assert await store.vintage(NAME, 1e12) == b"first"


async def test_of_looks_at_the_same_time_exactly_one_is_kept(store: VerdictStore):
    for version in range(3):
        read = await store.memory(NAME)
        rivals = [Memory(events=[*read.memory.events, event(version + 1, sentence=str(number))]) for number in range(6)]
        kept = await asyncio.gather(*(store.write(NAME, read, memory) for memory in rivals))
        assert sorted(kept) == [False] * 5 + [True]
        assert (await store.memory(NAME)).memory == rivals[kept.index(True)]
    assert [known.number for known in await store.events(NAME)] == [1, 2, 3]


async def test_the_events_of_a_look_are_kept_in_order_and_with_their_experiment(store: VerdictStore):
    assert await keep(store, Memory(events=[event(1), event(2, kind="questioned", effect=None)]))
    assert await keep(store, Memory(events=[event(1, "another")]), experiment="another")
    assert await store.events(NAME) == [event(1), event(2, kind="questioned", effect=None)]
    assert await store.events("another") == [event(1, "another")]


async def test_events_are_unsent_until_they_are_noted_as_sent(store: VerdictStore):
    events = [event(1), event(2), event(3)]
    assert await keep(store, Memory(events=events[:2]))
    assert await keep(store, Memory(events=[event(1, "another")]), experiment="another")
    assert await keep(store, Memory(events=events))
    unsent = await store.unsent(10)
    assert [known for known in unsent if known.experiment == NAME] == events
    assert event(1, "another") in unsent
    assert await store.unsent(2) == events[:2]
    for known in (events[0], events[0], event(1, "another")):
        await store.note_sent(known)
    assert await store.unsent(10) == events[1:]
    assert await store.events(NAME) == events


async def test_as_of_a_time_is_the_newest_vintage_until_then_byte_for_byte(store: VerdictStore):
    for at, results in ((10.5, b'{"a": 1}'), (20.25, b'{"a": \xff}'), (30.0, b"")):
        assert await keep(store, LOOKED, Vintage(at, results))
        assert (await store.memory(NAME)).vintage_at == at
    assert await keep(store, LOOKED)
    assert (await store.memory(NAME)).vintage_at == 30.0
    asked = {10.0: None, 10.5: b'{"a": 1}', 20.0: b'{"a": 1}', 20.25: b'{"a": \xff}', 29.9: b'{"a": \xff}', 1e300: b""}
    assert {at: await store.vintage(NAME, at) for at in asked} == asked
    assert await store.vintage("another", 1e12) is None


async def test_a_vintage_never_takes_the_place_of_another(store: VerdictStore):
    assert await keep(store, LOOKED, Vintage(10.0, b"first"))
    assert not await keep(store, Memory(), Vintage(10.0, b"second"))
    assert await store.memory(NAME) == KeptMemory(LOOKED, 1, 10.0)
    assert await store.vintage(NAME, 10.0) == b"first"


async def test_everything_is_there_when_the_store_is_opened_again(database: str):
    async with open_sql_store(database, 10.0) as store:
        await keep(store, Memory(events=[event(1)]), Vintage(10.0, b"results"))
    async with open_sql_store(database, 10.0) as store:
        assert await store.memory(NAME) == KeptMemory(Memory(events=[event(1)]), 1, 10.0)
        assert await store.events(NAME) == await store.unsent(10) == [event(1)]
        assert await store.vintage(NAME, 10.0) == b"results"


async def test_of_two_workers_that_look_at_the_same_time_one_is_refused(database: str):
    async with open_sql_store(database, 10.0) as one, open_sql_store(database, 10.0) as other:
        for _ in range(10):
            read = await one.memory(NAME)
            assert read == await other.memory(NAME)
            assert sorted(await asyncio.gather(one.write(NAME, read, LOOKED), other.write(NAME, read, Memory()))) == [
                False,
                True,
            ]
        assert (await one.memory(NAME)).version == 10


@pytest.mark.parametrize("name", ["x" * (NAME_CHARACTERS + 1), "a\0b", "\udcff"])
async def test_a_name_that_no_database_takes_is_unknown_to_all(database: str, name: str):
    assert not is_storable(name)
    async with open_sql_store(database, 10.0) as store:
        assert (await store.memory(name), await store.events(name)) == (KeptMemory(), [])
        assert await store.vintage(name, 1e12) is None


async def test_the_longest_name_is_kept(store: VerdictStore):
    name = "ä" * NAME_CHARACTERS
    assert is_storable(name)
    assert await keep(store, Memory(events=[event(1, name)]), Vintage(1.0, b"r"), name)
    assert await store.events(name) == [event(1, name)]


async def test_a_database_that_is_gone_is_an_error_that_can_be_handled(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    async with open_sql_store(f"sqlite+aiosqlite:///{folder / 'store.db'}", 10.0) as store:
        await keep(store, LOOKED)
        (folder / "store.db").write_bytes(b"no database")
        for call in (store.memory(NAME), store.write(NAME, KeptMemory(LOOKED, 1), LOOKED), store.unsent(1)):
            with pytest.raises(ResultsUnavailable):
                await call
