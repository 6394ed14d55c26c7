"""Every SQL store opens an empty database and the one of the last release, in SQLite and in PostgreSQL."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

from contender.contracts.inference_service import PromotionRecord
from services.ab_router import store as experiments
from services.feature_service.store import registry as features
from services.feedback_service import verdict_store as verdicts
from services.inference_service import store as models
from shared.sql import open_engine
from tests.contract.databases import empty_database, released_database

MIGRATIONS = {
    "ab_router": experiments.MIGRATIONS,
    "inference_service": models.MIGRATIONS,
    "feature_service": features.MIGRATIONS,
    "feedback_service": verdicts.MIGRATIONS,
}
TABLES = {
    "ab_router": {"experiment_revision"},
    "inference_service": {"model_version", "model_champion", "model_promotion"},
    "feature_service": {"feature_version", "feature_retirement", "feature_state", "feature_store"},
    "feedback_service": {"verdict_memory", "verdict_event", "verdict_vintage"},
}
KINDS = pytest.mark.parametrize("kind", ["sqlite", "postgres"])
SERVICES = pytest.mark.parametrize("service", list(MIGRATIONS))
RELEASED_SERVICES = pytest.mark.parametrize("service", ["ab_router", "inference_service", "feature_service"])
"""Those that had a database in the first release."""

OPEN = """
import asyncio, sys
from pathlib import Path
from shared.sql import open_engine
async def main():
    async with open_engine(sys.argv[1], Path(sys.argv[2])):
        pass
asyncio.run(main())
"""


IMPORTS = OPEN + "assert ('alembic' in sys.modules) == (sys.argv[3] == 'first'), sorted(sys.modules)"


async def opened(url: str, service: str) -> tuple[str, list[Any]]:
    """The revision of a database after it was opened, and how its tables differ from what the store works with."""
    async with open_engine(url, MIGRATIONS[service]) as engine, engine.connect() as connection:
        revision = await connection.scalar(text(f"SELECT version_num FROM {service}_schema_version"))
        differences = await connection.run_sync(differences_of, service)
    return str(revision), differences


def differences_of(connection: Connection, service: str) -> list[Any]:
    def is_own(name: str | None, kind: str, _: object) -> bool:
        return name in TABLES[service] if kind == "table" else True

    options = {"include_name": is_own, "include_object": lambda _o, name, kind, _r, _c: is_own(name, kind, None)}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), SQLModel.metadata))


def newest(service: str) -> str:
    folder = str(MIGRATIONS[service])
    return str(ScriptDirectory(folder, version_locations=[folder]).get_current_head())


@KINDS
@SERVICES
async def test_an_empty_database_gets_the_tables_that_the_store_works_with(kind, service, request, tmp_path):
    url = await empty_database(kind, request, tmp_path)
    assert await opened(url, service) == (newest(service), [])
    assert await opened(url, service) == (newest(service), [])


@KINDS
@RELEASED_SERVICES
async def test_the_database_of_the_last_release_gets_the_same_tables(kind, service, request, tmp_path):
    url = await released_database(kind, service, request, tmp_path)
    assert await opened(url, service) == (newest(service), [])


@KINDS
async def test_experiments_of_the_last_release_are_kept_and_added_to(kind, request, tmp_path):
    async with experiments.open_sql_store(await released_database(kind, "ab_router", request, tmp_path)) as store:
        revisions = await store.history("old")
        assert [revision.revision for revision in revisions] == list(range(1, len(revisions) + 1))
        assert revisions[-1].status == "stopped"
        assert await store.add(msgspec.structs.replace(revisions[-1], revision=len(revisions) + 1))


@KINDS
async def test_versions_of_the_last_release_are_kept_and_promoted(kind, request, tmp_path):
    async with models.open_sql_store(await released_database(kind, "inference_service", request, tmp_path)) as store:
        listing = await store.versions("old")
        assert not listing.unreadable
        other = next(version for version in listing.versions if not version.champion)
        assert await store.promotions("old") == []
        record = PromotionRecord(version=other.version, model="old", number=1, at=1.0, replaced="")
        assert await store.promote(record)
        champion = next(version for version in (await store.versions("old")).versions if version.champion)
        assert champion.version == other.version
        assert await store.add(msgspec.structs.replace(other, version="0" * 64))


@KINDS
async def test_processes_that_open_one_empty_database_take_turns(kind, request, tmp_path):
    url = await empty_database(kind, request, tmp_path)
    folders = [MIGRATIONS["ab_router"], MIGRATIONS["inference_service"]] * 2
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPEN, url, str(folder), stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        for folder in folders
    ]
    errors = [(await process.communicate())[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
    for service in ("ab_router", "inference_service"):
        assert await opened(url, service) == (newest(service), [])


@SERVICES
async def test_a_process_that_finds_the_tables_up_to_date_does_without_alembic(service, tmp_path):
    url, folder = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}", str(MIGRATIONS[service])
    for turn in ("first", "second"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", IMPORTS, url, folder, turn, cwd=Path(__file__).parents[2]
        )
        assert await process.wait() == 0, turn


async def test_a_migration_that_fails_changes_nothing(tmp_path):
    folder = tmp_path / "toy % service" / "migrations"
    folder.mkdir(parents=True)
    script = "from alembic import op\nrevision = {0!r}\ndown_revision = {1!r}\ndef upgrade():\n    op.execute({2!r})\n"
    (folder / "first.py").write_text(script.format("1", None, "CREATE TABLE first (id INTEGER)"))
    (folder / "second.py").write_text(script.format("2", "1", "CREATE TABEL second (id INTEGER)"))
    url = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    with pytest.raises(Exception, match="TABEL"):
        async with open_engine(url, folder):
            pass
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    assert tables == []
