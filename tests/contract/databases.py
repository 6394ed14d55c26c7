"""Databases for the contract tests of SQL stores: empty ones, and the ones that the last release left behind."""

import shutil
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

RELEASE = Path(__file__).parents[1] / "data" / "release-0.1.0.tar.xz"


async def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a database without tables; `kind` is sqlite or postgres."""
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{folder / 'store.db'}"
    url: str = request.getfixturevalue("postgres")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return url


async def released_database(kind: str, service: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """A copy of a service's database in the last release, which knew no migrations."""
    with tarfile.open(RELEASE) as release:
        release.extractall(folder / "release", filter="data")
    kept = folder / "release" / service / "store.db"
    url = await empty_database(kind, request, folder)
    if kind == "sqlite":
        shutil.copy(kept, folder / "store.db")
        return url
    source = create_engine(f"sqlite:///{kept}")
    tables = MetaData()
    tables.reflect(source)
    with source.connect() as connection:
        rows = {table: [row._asdict() for row in connection.execute(table.select())] for table in tables.sorted_tables}
    source.dispose()
    engine = create_async_engine(url)
    async with engine.begin() as target:
        await target.run_sync(tables.create_all)
        for table, values in rows.items():
            if values:
                await target.execute(table.insert(), values)
            if values and "id" in table.columns and table.name != "feature_store":
                await target.execute(
                    text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), {values[-1]['id']})")
                )
    await engine.dispose()
    return url
