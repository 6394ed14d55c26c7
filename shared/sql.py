"""How a service opens its SQL database, SQLite or PostgreSQL, and brings its tables up to date."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_ENVIRONMENT = Path(__file__).with_name("migrations")
_LOCK_STATEMENTS = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(4716303281)"}
"""Whoever migrates holds this lock until its transaction ends, so that processes that start together take turns."""


@asynccontextmanager
async def open_engine(url: str, migrations: Path) -> AsyncIterator[AsyncEngine]:
    """An engine for the database at `url`, after the migrations have run.

    Several processes may open a database at once, and a restart of the database costs no call.

    Args:
        url: as SQLAlchemy spells it.
        migrations: the folder `migrations` of a service.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refuses, or a migration fails.
        OSError: the database can't be reached.
    """
    engine = create_async_engine(url, pool_pre_ping=True)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate, migrations)
        yield engine
    finally:
        await engine.dispose()


def migrate(connection: Connection, migrations: Path) -> None:
    """Run a service's migrations that the database has not had, within the connection's transaction.

    Services may share a database: each records its revision in a table of its own. The first migration of a service
    creates only what is missing, because the first release created the same tables without Alembic.
    """
    connection.exec_driver_sql(_LOCK_STATEMENTS[connection.dialect.name])
    table = f"{migrations.parent.name}_schema_version"
    if _version(connection, table) == _newest(migrations):
        return
    # It takes 10 MB, and all but the first process of a service find the tables up to date.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", _option(_ENVIRONMENT))
    config.set_main_option("version_locations", _option(migrations))
    config.set_main_option("path_separator", "newline")  # a path may hold blanks and colons
    config.attributes.update(connection=connection, version_table=table)
    command.upgrade(config, "head")


def _version(connection: Connection, table: str) -> str | None:
    """The revision of a service's tables; None before their first migration."""
    if not inspect(connection).has_table(table):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {table}"))  # noqa: S608 - the service's name
    return version


def _newest(migrations: Path) -> str:
    """The revision of the newest migration, which its file's name begins with: `v0001_first_release.py`."""
    return max((path.name[1:].partition("_")[0] for path in migrations.glob("v[0-9]*_*.py")), default="")


def _option(path: Path) -> str:
    """A path as a value of the configuration, in which a percent sign begins a reference."""
    return str(path).replace("%", "%%")
