"""One contract for the stores of experiments and of model versions: in memory, in SQLite, and in PostgreSQL."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import create_async_engine

from contender.contracts.experiments import (
    Canary,
    Evidence,
    ExperimentRevision,
    Namespace,
    TargetingRule,
    VariantAllocation,
)
from contender.contracts.inference_service import InputColumn, ModelVersion, Promotion, PromotionRecord, VersionDetails
from services.ab_router import store as experiments
from services.ab_router.errors import ExperimentStoreError
from services.ab_router.store import ExperimentStore, InMemoryExperimentStore
from services.inference_service import store as models
from services.inference_service.main import state_of
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import InMemoryVersionStore, Listing, VersionStore
from shared.clock import FixedClock
from shared.errors import Conflict
from tests.contract.databases import empty_database

OLD, NEW, NEWEST = ("a" * 64, "b" * 64, "c" * 64)


def revision(number: int, name: str = "e", **changes: object) -> ExperimentRevision:
    whole = ExperimentRevision(
        name=name,
        model="churn",
        revision=number,
        epoch=1,
        status="draft",
        seed="ünï",
        champion=OLD,
        variants=[VariantAllocation("champion", OLD, 0.5), VariantAllocation("challenger", NEW, 0.5)],
        metric="log_loss",
        window_s=3600.0,
        changed_at=1_700_000_000.25,
    )
    return replace(whole, **changes)


def details(name: str, model: str = "churn", **changes: object) -> VersionDetails:
    return VersionDetails.of(version(name, model, **changes), {"parameters": {"depth": 3}, "note": "ünï"})


def version(name: str, model: str = "churn", **changes: object) -> ModelVersion:
    whole = ModelVersion(
        model=model,
        version=name,
        task="binary",
        classes=["no", "yes"],
        inputs=[InputColumn("plan", "string")],
        registered_at=1_700_000_000.25,
    )
    return replace(whole, **changes)


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return await empty_database(request.param, request, tmp_path)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def experiment_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ExperimentStore]:
    if request.param == "memory":
        yield InMemoryExperimentStore()
        return
    async with experiments.open_sql_store(await empty_database(request.param, request, tmp_path)) as store:
        yield store


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def version_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VersionStore]:
    if request.param == "memory":
        yield InMemoryVersionStore()
        return
    async with models.open_sql_store(await empty_database(request.param, request, tmp_path)) as store:
        yield store


def promotion(version: str, number: int = 1, model: str = "churn", **changes: object) -> PromotionRecord:
    whole = PromotionRecord(version=version, model=model, number=number, at=1_700_000_000.25, replaced=OLD)
    return replace(whole, **changes)


def champions(versions: list[ModelVersion]) -> dict[str, list[str]]:
    champions_by_model: dict[str, list[str]] = {version.model: [] for version in versions}
    for version in versions:
        champions_by_model[version.model] += [version.version] if version.champion else []
    return champions_by_model


async def test_a_new_experiment_store_is_empty(experiment_store: ExperimentStore):
    assert await experiment_store.current() == []
    assert await experiment_store.history("e") == []


async def test_a_revision_is_read_as_it_was_added(experiment_store: ExperimentStore):
    whole = revision(1, missing="negative", fallback_value=0.25, started_at=1.5, stopped_at=2.5)
    assert await experiment_store.add(whole)
    assert await experiment_store.current() == [whole]


async def test_a_revision_with_a_place_a_schedule_and_verdicts_is_read_as_it_was_added(experiment_store):
    verdict = Evidence(experiment="e", number=3, challenger="challenger", status="no worse", sentence="Ünï.", at=1.5)
    whole = revision(
        1,
        status="decided",
        namespace=Namespace("n", 0.25, 0.5),
        targeting=[TargetingRule("a", equals=None), TargetingRule("b", one_of=[1, 1.5, "x", True])],
        forced={"tester": "challenger"},
        holdout=0.1,
        canary=Canary([0.1, 0.5]),
        step=1,
        sticky=True,
        verdicts={"challenger": verdict},
        evidence=verdict,
        changed_by="ann",
        reason="ünï",
        override="we know",
        restart_of="d",
        model_champion=OLD,
    )
    assert await experiment_store.add(whole)
    assert await experiment_store.history("e") == await experiment_store.current() == [whole]


async def test_the_newest_revision_of_each_experiment_is_current_and_the_oldest_experiment_first(experiment_store):
    for change in (revision(1, "z"), revision(1, "a"), revision(2, "z", status="running")):
        assert await experiment_store.add(change)
    assert await experiment_store.current() == [revision(2, "z", status="running"), revision(1, "a")]


async def test_the_history_holds_all_revisions_of_one_experiment_oldest_first(experiment_store: ExperimentStore):
    for change in (revision(1), revision(1, "other"), revision(2), revision(3)):
        await experiment_store.add(change)
    assert await experiment_store.history("e") == [revision(1), revision(2), revision(3)]


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "\ud800", "x" * 10_000, "' OR 1=1"])
async def test_whatever_can_be_no_name_has_no_history(experiment_store: ExperimentStore, name: str):
    await experiment_store.add(revision(1))
    assert await experiment_store.history(name) == []


async def test_a_revision_is_written_once_and_never_changed(experiment_store: ExperimentStore):
    assert await experiment_store.add(revision(1))
    assert not await experiment_store.add(revision(1, status="running"))
    assert await experiment_store.add(revision(1, "other"))
    assert await experiment_store.history("e") == [revision(1)]


async def test_of_changes_at_the_same_time_exactly_one_gets_the_number(experiment_store: ExperimentStore):
    rivals = [revision(1, seed=str(number)) for number in range(8)]
    added = await asyncio.gather(*map(experiment_store.add, rivals))
    assert sorted(added) == [False] * 7 + [True]
    assert await experiment_store.history("e") == [rivals[added.index(True)]]


async def test_of_two_routers_that_change_an_experiment_at_the_same_time_one_is_refused(database: str):
    async with experiments.open_sql_store(database) as first, experiments.open_sql_store(database) as second:
        for number in range(1, 11):
            added = await asyncio.gather(first.add(revision(number)), second.add(revision(number)))
            assert sorted(added) == [False, True]
        assert await first.history("e") == await second.history("e") == [revision(number) for number in range(1, 11)]


async def test_experiments_are_there_when_the_store_is_opened_again(database: str):
    async with experiments.open_sql_store(database) as store:
        await store.add(revision(1))
        await store.add(revision(2))
    async with experiments.open_sql_store(database) as store:
        assert await store.history("e") == [revision(1), revision(2)]
        assert not await store.add(revision(2))


async def test_a_check_sees_the_newest_revisions_and_what_it_raises_keeps_the_revision_out(experiment_store):
    def refuse(current: list[ExperimentRevision]) -> None:
        seen.append(current)
        raise Conflict("refused")

    seen: list[list[ExperimentRevision]] = []
    for change in (revision(1), revision(2), revision(1, "other")):
        assert await experiment_store.add(change)
    with pytest.raises(Conflict, match="refused"):
        await experiment_store.add(revision(3), refuse)
    assert seen == [[revision(2), revision(1, "other")]]
    assert await experiment_store.history("e") == [revision(1), revision(2)]
    assert await experiment_store.add(revision(3), seen.append)
    assert not await experiment_store.add(revision(3), seen.append)


async def test_between_a_check_and_its_addition_no_other_router_adds_one_with_a_check(database: str):
    """Each router lets an experiment run only where none does."""

    def none_runs(current: list[ExperimentRevision]) -> None:
        if any(known.status == "running" for known in current):
            raise Conflict("one runs")

    async with experiments.open_sql_store(database) as first, experiments.open_sql_store(database) as second:
        for name in "abcdefgh":
            await first.add(revision(1, name))
        stores = [first, second] * 4
        runs = [revision(2, name, status="running") for name in "abcdefgh"]
        starts = [store.add(run, none_runs) for store, run in zip(stores, runs, strict=True)]
        made = await asyncio.gather(*starts, return_exceptions=True)
        assert sorted(map(str, made)) == ["True", *["one runs"] * 7]
        assert [known.status for known in await second.current()].count("running") == 1


async def test_the_current_revisions_are_read_again_after_another_router_s_change_and_only_then(database: str):
    async with experiments.open_sql_store(database) as first, experiments.open_sql_store(database) as second:
        await first.add(revision(1))
        known = await second.current()
        assert await second.current() is known
        await first.add(revision(1, "other"))
        await first.add(revision(2))
        assert await second.current() == [revision(2), revision(1, "other")]


async def test_a_thousand_experiments_of_twenty_revisions_are_listed_by_their_newest_alone(database: str):
    names = [f"e-{number}" for number in range(1_000)]
    rows = [
        {"name": name, "revision": number, "document": document_of(revision(number, name)), "changed_at": 1.0}
        for number in range(1, 21)
        for name in names
    ]
    async with experiments.open_sql_store(database) as store:
        assert await store.current() == []
        engine = create_async_engine(database)
        async with engine.begin() as connection:
            await connection.execute(insert(experiments.RevisionRow), rows)
            await connection.execute(
                update(experiments.RevisionRow).where(experiments.RevisionRow.revision < 20).values(document="unread")
            )
        await engine.dispose()
        newest = await store.current()
        assert [known.name for known in newest] == names
        assert {known.revision for known in newest} == {20}


def document_of(whole: ExperimentRevision) -> str:
    return msgspec.json.encode(whole).decode()


async def test_a_store_opens_without_its_database_and_works_once_it_is_there(tmp_path: Path):
    folder = tmp_path / "later"
    async with experiments.open_sql_store(f"sqlite+aiosqlite:///{folder / 'store.db'}") as store:
        with pytest.raises(ExperimentStoreError):
            await store.current()
        folder.mkdir()
        assert await store.add(revision(1))
        assert await store.current() == [revision(1)]


async def test_a_locked_database_is_an_outage_for_as_long_as_it_is_locked(tmp_path: Path):
    path = tmp_path / "store.db"
    async with experiments.open_sql_store(f"sqlite+aiosqlite:///{path}", 0.2) as store:
        await add_once_migrated(store, revision(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for call in (store.current, lambda: store.history("e"), lambda: store.add(revision(2))):
                async with asyncio.timeout(60):
                    with pytest.raises(ExperimentStoreError):
                        await call()
            other.execute("ROLLBACK")
        await add_once_migrated(store, revision(2))
        assert len(await store.history("e")) == 2


async def add_once_migrated(store: ExperimentStore, whole: ExperimentRevision) -> None:
    """Add a revision, however long a busy machine takes for the migration."""
    async with asyncio.timeout(60):
        while True:
            with suppress(ExperimentStoreError):
                await store.add(whole)
                return


async def test_a_frozen_postgresql_is_an_outage_for_as_long_as_it_is_frozen(request, tmp_path):
    url = await empty_database("postgres", request, tmp_path)
    async with experiments.open_sql_store(url, 1.0) as store:
        await add_once_migrated(store, revision(1))
        processes = await processes_of(url)
        send_all(processes, signal.SIGSTOP)
        try:
            for call in (store.current, lambda: store.history("e"), lambda: store.add(revision(2))):
                async with asyncio.timeout(30):
                    with pytest.raises(ExperimentStoreError):
                        await call()
        finally:
            send_all(processes, signal.SIGCONT)
        async with asyncio.timeout(60):
            while True:
                with suppress(ExperimentStoreError):
                    assert revision(1) in await store.history("e")
                    return


def send_all(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # the connection that asked for them is gone by now
            os.kill(process, number)


async def processes_of(url: str) -> list[int]:
    """PostgreSQL's own processes: the one that listens, and those of its connections."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        folder = Path(str(await connection.scalar(text("SHOW data_directory"))))
    await engine.dispose()
    server = int((folder / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [server, *map(int, children)]


async def test_a_new_version_store_is_empty(version_store: VersionStore):
    assert await version_store.models() == Listing([])
    assert await version_store.versions("churn") == Listing([])
    assert await version_store.promotions("churn") == []


async def test_a_version_is_read_as_it_was_added_and_the_first_of_a_model_is_its_champion(version_store: VersionStore):
    assert await version_store.add(details(OLD))
    assert await version_store.add(details(NEW))
    assert await version_store.add(details(NEW, "other"))
    assert (await version_store.versions("churn")).versions == [version(OLD, champion=True), version(NEW)]
    assert (await version_store.versions("other")).versions == [version(NEW, "other", champion=True)]


async def test_a_manifest_is_read_as_it_was_added(version_store: VersionStore):
    await version_store.add(details(OLD))
    assert await version_store.manifest("churn", OLD) == details(OLD).manifest
    assert await version_store.manifest("churn", NEW) == await version_store.manifest("other", OLD) == {}


async def test_versions_are_listed_oldest_first_across_models(version_store: VersionStore):
    order = [("z", NEW), ("a", NEWEST), ("z", OLD)]
    for model, name in order:
        await version_store.add(details(name, model))
    assert [(version.model, version.version) for version in (await version_store.models()).versions] == order


async def test_a_version_is_written_once_and_never_changed(version_store: VersionStore):
    assert await version_store.add(details(OLD))
    assert not await version_store.add(details(OLD, description="another"))
    assert (await version_store.models()).versions == [version(OLD, champion=True)]


async def test_of_registrations_of_one_version_at_the_same_time_exactly_one_is_kept(version_store: VersionStore):
    rivals = [details(OLD, description=str(number)) for number in range(8)]
    added = await asyncio.gather(*map(version_store.add, rivals))
    assert sorted(added) == [False] * 7 + [True]
    assert (await version_store.models()).versions == [version(OLD, description=str(added.index(True)), champion=True)]


async def test_of_first_versions_registered_at_the_same_time_one_becomes_champion(version_store: VersionStore):
    names = [f"{number:064d}" for number in range(8)]
    assert all(await asyncio.gather(*(version_store.add(details(name)) for name in names)))
    kept = (await version_store.models()).versions
    assert sorted(version.version for version in kept) == names
    assert [len(names_of_model) for names_of_model in champions(kept).values()] == [1]


async def test_a_promoted_version_is_the_only_champion_of_its_model(version_store: VersionStore):
    for version in (details(OLD), details(NEW), details(OLD, "other"), details(NEW, "other")):
        await version_store.add(version)
    assert await version_store.promote(promotion(NEW))
    assert champions((await version_store.models()).versions) == {"churn": [NEW], "other": [OLD]}


async def test_promotions_are_read_as_they_were_kept_oldest_first(version_store: VersionStore):
    evidence = {"experiment": "churn-2", "verdict": 1, "evidence": "better", "changed_by": "ünï", "override": "why"}
    records = [
        promotion(NEW, reason="a reason", **evidence),
        promotion(OLD, 2, replaced=NEW, rolls_back=1),
        promotion(NEW, 1, "other"),
    ]
    for record in records:
        assert await version_store.promote(record)
    assert await version_store.promotions("churn") == records[:2]
    assert await version_store.promotions("other") == records[2:]


async def test_of_promotions_at_the_same_time_one_is_kept_and_holds(version_store: VersionStore):
    for name in (OLD, NEW, NEWEST):
        await version_store.add(details(name))
    rivals = [promotion(name) for name in (NEW, NEWEST) * 4]
    kept = await asyncio.gather(*map(version_store.promote, rivals))
    assert sorted(kept) == [False] * 7 + [True]
    winner = rivals[kept.index(True)]
    assert await version_store.promotions("churn") == [winner]
    assert champions((await version_store.models()).versions)["churn"] == [winner.version]


async def test_the_champion_has_a_name_even_if_its_row_can_not_be_read(database: str):
    async with models.open_sql_store(database) as store:
        assert await store.champion("churn") is None
        await store.add(details(OLD))
        await spoil(database, OLD, "{not json")
        assert await store.champion("churn") == OLD


async def test_promotions_by_two_processes_are_on_record_one_after_the_other(database: str, tmp_path: Path):
    settings = InferenceSettings(data=tmp_path)
    async with models.open_sql_store(database) as first, models.open_sql_store(database) as second:
        for name in (OLD, NEW, NEWEST):
            await first.add(details(name))
        champions = [state_of(settings, store, FixedClock(1.0))["champions"] for store in (first, second)]
        wanted = [Promotion(name) for name in (NEW, NEWEST, OLD, NEW)]
        await asyncio.gather(*(each.promote("churn", change) for change in wanted for each in champions))
        records = await first.promotions("churn")
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert [record.replaced for record in records] == [OLD, *(record.version for record in records[:-1])]
        assert await second.champion("churn") == records[-1].version


async def test_whoever_reads_meanwhile_finds_one_champion_in_every_model(version_store: VersionStore):
    async def register(model: str) -> None:
        for name in (OLD, NEW):
            assert await version_store.add(details(name, model))
        assert await version_store.promote(promotion(NEW, model=model))

    async with asyncio.TaskGroup() as group:
        writing = [group.create_task(register(f"m-{number}")) for number in range(20)]
        while not all(task.done() for task in writing):
            champions_by_model = champions((await version_store.models()).versions)
            assert {model: len(names) for model, names in champions_by_model.items()} == dict.fromkeys(
                champions_by_model, 1
            )
            await asyncio.sleep(0)
    assert champions((await version_store.models()).versions) == {f"m-{number}": [NEW] for number in range(20)}


async def test_two_processes_that_register_the_same_version_keep_it_once(database: str):
    async with models.open_sql_store(database) as first, models.open_sql_store(database) as second:
        for number in range(10):
            same = details(f"{number:064d}")
            assert sorted(await asyncio.gather(first.add(same), second.add(same))) == [False, True]
        assert len((await first.models()).versions) == 10


async def test_versions_and_champions_are_there_when_the_store_is_opened_again(database: str):
    async with models.open_sql_store(database) as store:
        await store.add(details(OLD))
        await store.add(details(NEW))
        await store.promote(promotion(NEW))
    async with models.open_sql_store(database) as store:
        assert (await store.models()).versions == [version(OLD), version(NEW, champion=True)]
        assert await store.promotions("churn") == [promotion(NEW)]
        assert not await store.promote(promotion(OLD))


DEEP = '{"model": "churn", "manifest": ' + "[" * 400 + "]" * 400 + "}"


@pytest.mark.parametrize(
    "document", ["", "{not json", "[]", '{"model": "churn"}', DEEP], ids=["empty", "torn", "list", "old", "deep"]
)
async def test_a_row_that_can_not_be_read_hides_no_other_and_is_named(database: str, document: str):
    async with models.open_sql_store(database) as store:
        for version in (details(OLD), details(NEW), details(OLD, "other")):
            await store.add(version)
        await spoil(database, NEW, document)
        whole, own = await store.models(), await store.versions("churn")
        assert [(version.model, version.version) for version in whole.versions] == [("churn", OLD), ("other", OLD)]
        assert [version.version for version in own.versions] == [OLD]
        for listing in (whole, own):
            assert [(row.model, row.version) for row in listing.unreadable] == [("churn", NEW)]
            assert listing.unreadable[0].reason


async def test_a_row_of_other_bytes_than_text_hides_no_other(tmp_path: Path):
    database = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    async with models.open_sql_store(database) as store:
        await store.add(details(OLD))
        await store.add(details(NEW))
        await spoil(database, NEW, "\udcff\udcfe".encode(errors="surrogateescape"))
        listing = await store.models()
        assert [version.version for version in listing.versions] == [OLD]
        assert [row.version for row in listing.unreadable] == [NEW]


async def spoil(database: str, name: str, document: str | bytes) -> None:
    """Overwrite a version's document; bytes become SQLite's text as they are."""
    engine = create_async_engine(database)
    kept = "CAST(:document AS TEXT)"
    async with engine.begin() as connection:
        await connection.execute(
            text(f"UPDATE model_version SET document = {kept} WHERE version = :name"),
            {"document": document, "name": name},
        )
    await engine.dispose()


async def test_the_stores_of_both_services_share_a_database(database: str):
    async with experiments.open_sql_store(database) as first, models.open_sql_store(database) as second:
        await first.add(revision(1))
        await second.add(details(OLD))
        assert await first.current() == [revision(1)]
        assert (await second.models()).versions == [version(OLD, champion=True)]


async def test_processes_that_start_at_the_same_time_on_an_empty_database_all_open_it(database: str):
    async def start(number: int) -> None:
        async with experiments.open_sql_store(database) as first, models.open_sql_store(database) as second:
            assert await first.add(revision(number))
            assert await second.add(details(f"{number:064d}"))

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(start(number))
    async with experiments.open_sql_store(database) as store:
        assert len(await store.history("e")) == 6


async def test_a_store_goes_on_after_the_server_has_closed_its_connections(postgres: str):
    async with experiments.open_sql_store(postgres) as store:
        before = await store.current()
        engine = create_async_engine(postgres)
        async with engine.connect() as connection:
            ended = await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND backend_type = 'client backend'"
                )
            )
            assert any(ended.scalars())
        await engine.dispose()
        assert await store.current() == before
