"""The store of experiments: a row for each revision, of which the newest is in force."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy import UniqueConstraint, exc, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import Field, SQLModel, col

from contender.contracts.experiments import ExperimentRevision
from services.ab_router.errors import ExperimentStoreError
from shared.sql import open_engine

MIGRATIONS = Path(__file__).with_name("migrations")


class ExperimentStore(Protocol):
    """Revisions of experiments, append-only."""

    async def add(self, revision: ExperimentRevision) -> bool:
        """Keep a revision; false when the experiment has a revision of that number."""
        ...

    async def current(self) -> list[ExperimentRevision]:
        """The newest revision of every experiment, oldest experiment first."""
        ...

    async def history(self, name: str) -> list[ExperimentRevision]:
        """All revisions of an experiment, oldest first; empty when there is none of that name."""
        ...


class RevisionRow(SQLModel, table=True):
    """One revision; `document` is the ExperimentRevision in JSON."""

    __tablename__ = "experiment_revision"
    __table_args__ = (UniqueConstraint("name", "revision"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True, max_length=200)
    revision: int
    document: str
    changed_at: float


class SqlExperimentStore:
    """Revisions in SQLite or PostgreSQL.

    Args:
        engine: the database.
        timeout_s: longest a query to it may take.
    """

    def __init__(self, engine: AsyncEngine, timeout_s: float = 10.0) -> None:
        self._engine = engine
        self._timeout_s = timeout_s

    async def add(self, revision: ExperimentRevision) -> bool:
        """Keep a revision; false when the experiment has a revision of that number."""
        row = insert(RevisionRow).values(
            name=revision.name,
            revision=revision.revision,
            document=msgspec.json.encode(revision).decode(),
            changed_at=revision.changed_at,
        )
        try:
            async with self._transaction() as connection:
                await connection.execute(row)
        except exc.IntegrityError:
            return False
        return True

    async def current(self) -> list[ExperimentRevision]:
        """The newest revision of every experiment, oldest experiment first."""
        return _newest(await self._all())

    async def history(self, name: str) -> list[ExperimentRevision]:
        """All revisions of an experiment, oldest first."""
        return [revision for revision in await self._all() if revision.name == name]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(self._timeout_s), self._engine.begin() as connection:
                yield connection
        except exc.IntegrityError:  # its meaning depends on the statement: the caller handles it
            raise
        except (exc.SQLAlchemyError, OSError) as error:  # asyncpg raises both, and a TimeoutError is an OSError
            raise ExperimentStoreError("experiments can't be read or changed at the moment") from error

    async def _all(self) -> list[ExperimentRevision]:
        query = select(col(RevisionRow.document)).order_by(col(RevisionRow.id))
        async with self._transaction() as connection:
            documents = (await connection.scalars(query)).all()
        return [msgspec.json.decode(document, type=ExperimentRevision) for document in documents]


class InMemoryExperimentStore:
    """Revisions in a list, for tests."""

    def __init__(self) -> None:
        self._revisions: list[ExperimentRevision] = []

    async def add(self, revision: ExperimentRevision) -> bool:
        """Keep a revision; false when the experiment has a revision of that number."""
        key = (revision.name, revision.revision)
        if any((known.name, known.revision) == key for known in self._revisions):
            return False
        self._revisions.append(revision)
        return True

    async def current(self) -> list[ExperimentRevision]:
        """The newest revision of every experiment, oldest experiment first."""
        return _newest(self._revisions)

    async def history(self, name: str) -> list[ExperimentRevision]:
        """All revisions of an experiment, oldest first."""
        return [revision for revision in self._revisions if revision.name == name]


@asynccontextmanager
async def open_sql_store(url: str, timeout_s: float = 10.0) -> AsyncIterator[SqlExperimentStore]:
    """A store on the database at `url`, brought up to date."""
    async with open_engine(url, MIGRATIONS) as engine:
        yield SqlExperimentStore(engine, timeout_s)


def _newest(revisions: list[ExperimentRevision]) -> list[ExperimentRevision]:
    newest: dict[str, ExperimentRevision] = {}
    for revision in revisions:
        newest[revision.name] = revision
    return list(newest.values())
