"""The store of experiments: a row for each revision, of which the newest is in force."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy import Select, UniqueConstraint, exc, func, insert, make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel import Field, SQLModel, col

from contender.contracts.experiments import ExperimentRevision
from services.ab_router.errors import ExperimentStoreError
from shared.sql import migrate

MIGRATIONS = Path(__file__).with_name("migrations")
Check = Callable[[list[ExperimentRevision]], None]
_LOCK_STATEMENTS = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(4716303282)"}
"""Whoever checks before an addition holds this lock until its transaction ends."""


class ExperimentStore(Protocol):
    """Revisions of experiments, append-only."""

    async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
        """Keep a revision; false when the experiment has a revision of that number.

        A `check` is called first with the newest revision of every experiment. Between it and the addition no other
        revision is added that has a check, whichever router adds it; what it raises is raised here.
        """
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
        is_migrated: whether its tables are up to date; else the first call that reaches it brings them there.
    """

    def __init__(self, engine: AsyncEngine, timeout_s: float = 10.0, *, is_migrated: bool = True) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._is_migrated = is_migrated
        self._migrating = asyncio.Lock()
        self._size: tuple[int, int] = (-1, -1)
        self._current: list[ExperimentRevision] = []

    async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
        """Keep a revision; false when the experiment has a revision of that number."""
        row = insert(RevisionRow).values(
            name=revision.name,
            revision=revision.revision,
            document=msgspec.json.encode(revision).decode(),
            changed_at=revision.changed_at,
        )
        try:
            async with self._transaction() as connection:
                if check is not None:
                    await connection.exec_driver_sql(_LOCK_STATEMENTS[self._engine.dialect.name])
                    check(_decoded((await connection.scalars(_newest_documents())).all()))
                await connection.execute(row)
        except exc.IntegrityError:
            return False
        return True

    async def current(self) -> list[ExperimentRevision]:
        """The newest revision of every experiment, oldest experiment first.

        Rows are only added, so their number and the highest id tell whether any were: ids may become visible out of
        order. As long as none were, this is the same list.
        """
        async with self._transaction() as connection:
            highest, number = (await connection.execute(_SIZE)).one()
            size = (highest or 0, number)
            if size == self._size:
                return self._current
            documents = (await connection.scalars(_newest_documents())).all()
        self._current, self._size = _decoded(documents), size
        return self._current

    async def history(self, name: str) -> list[ExperimentRevision]:
        """All revisions of an experiment, oldest first."""
        if not (name.isascii() and name.isprintable()):  # no name, and PostgreSQL refuses null characters
            return []
        query = (
            select(col(RevisionRow.document)).where(col(RevisionRow.name) == name).order_by(col(RevisionRow.revision))
        )
        async with self._transaction() as connection:
            documents = (await connection.scalars(query)).all()
        return _decoded(documents)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._migrate()
                async with self._engine.begin() as connection:
                    yield connection
        except exc.IntegrityError:  # its meaning depends on the statement: the caller handles it
            raise
        except (exc.SQLAlchemyError, OSError) as error:  # asyncpg raises both, and a TimeoutError is an OSError
            raise ExperimentStoreError("experiments can't be read or changed at the moment") from error

    async def _migrate(self) -> None:
        if self._is_migrated:
            return
        async with self._migrating:
            if not self._is_migrated:
                async with self._engine.begin() as connection:
                    await connection.run_sync(migrate, MIGRATIONS)
                self._is_migrated = True


class InMemoryExperimentStore:
    """Revisions in a list, for tests."""

    def __init__(self) -> None:
        self._revisions: list[ExperimentRevision] = []

    async def add(self, revision: ExperimentRevision, check: Check | None = None) -> bool:
        """Keep a revision; false when the experiment has a revision of that number."""
        if check is not None:
            check(_newest(self._revisions))
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
    """A store on the database at `url`, which need not be there yet: its tables are brought up to date once it is.

    Args:
        url: as SQLAlchemy spells it.
        timeout_s: longest a query may take.
    """
    # SQLite waits for another process's lock in a thread that nothing can cancel, so its own limit is the same.
    arguments = {"timeout": timeout_s} if make_url(url).get_backend_name() == "sqlite" else {}
    engine = create_async_engine(url, pool_pre_ping=True, connect_args=arguments)
    try:
        yield SqlExperimentStore(engine, timeout_s, is_migrated=False)
    finally:
        await engine.dispose()


_SIZE = select(
    select(func.max(col(RevisionRow.id))).scalar_subquery(),
    select(func.count()).select_from(RevisionRow).scalar_subquery(),
)
"""The highest id and the number of rows: two queries, each of which an index answers."""


def _newest_documents() -> Select[str]:
    """The document of each experiment's newest revision, in the order of their first ones."""
    name, number, row_id = col(RevisionRow.name), col(RevisionRow.revision), col(RevisionRow.id)
    newest = select(name, func.max(number).label("number"), func.min(row_id).label("first")).group_by(name).subquery()
    return (
        select(col(RevisionRow.document))
        .join(newest, (name == newest.c.name) & (number == newest.c.number))
        .order_by(newest.c.first)
    )


def _decoded(documents: Sequence[str]) -> list[ExperimentRevision]:
    return [msgspec.json.decode(document, type=ExperimentRevision) for document in documents]


def _newest(revisions: list[ExperimentRevision]) -> list[ExperimentRevision]:
    newest: dict[str, ExperimentRevision] = {}
    for revision in revisions:
        newest[revision.name] = revision
    return list(newest.values())
