"""How a service opens its SQL database, SQLite or PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import SQLModel

_TRIES = 3


@asynccontextmanager
async def open_engine(url: str, tables: Sequence[str]) -> AsyncIterator[AsyncEngine]:
    """An engine for the database at `url`, whose `tables` are made when they are missing.

    Several processes may open an empty database at once, and a restart of the database costs no call.

    Raises:
        sqlalchemy.exc.DBAPIError: the database refuses, or the tables can't be made.
        OSError: it can't be reached.
    """
    engine = create_async_engine(url, pool_pre_ping=True)
    try:
        await _make(engine, tables, _TRIES)
        yield engine
    finally:
        await engine.dispose()


async def _make(engine: AsyncEngine, tables: Sequence[str], tries: int) -> None:
    wanted = [SQLModel.metadata.tables[name] for name in tables]
    try:
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: SQLModel.metadata.create_all(sync, tables=wanted))
    except DBAPIError:  # another process made one between the look and the making, which IF NOT EXISTS does not prevent
        if tries == 1:
            raise
        await _make(engine, tables, tries - 1)
