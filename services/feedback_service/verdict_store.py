"""The store of verdicts: what is remembered of each experiment, the events found, and vintages of its results."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy import LargeBinary, UniqueConstraint, exc, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import Field, SQLModel, col

from contender.contracts.feedback_service import VerdictEvent
from services.feedback_service.domain.memory import Memory
from services.feedback_service.errors import ResultsUnavailable
from shared.sql import open_engine

MIGRATIONS = Path(__file__).with_name("migrations")
NAME_CHARACTERS = 200
"""The longest name of an experiment that is kept; those that a router makes are shorter."""


@dataclass(frozen=True, slots=True)
class KeptMemory:
    """The memory of an experiment as it is stored.

    `version` counts its writes, 0 before the first. `vintage_at`, in seconds since the Unix epoch, is that of the
    newest vintage.
    """

    memory: Memory = field(default_factory=Memory)
    version: int = 0
    vintage_at: float | None = None


@dataclass(frozen=True, slots=True)
class Vintage:
    """The results of an experiment in JSON, as they were at a time in seconds since the Unix epoch."""

    at: float
    results: bytes


class VerdictStore(Protocol):
    """What looks at experiments have found, for good.

    Every call raises ResultsUnavailable when the store can't be reached.
    """

    async def memory(self, experiment: str) -> KeptMemory:
        """The memory of an experiment; an empty one of version 0 before the first write."""
        ...

    async def write(
        self,
        experiment: str,
        read: KeptMemory,
        memory: Memory,
        vintage: Vintage | None = None,
    ) -> bool:
        """Keep the memory after a look, with the events that it has beyond those of `read`, all or nothing.

        Args:
            experiment: its name, which `is_storable`.
            read: the memory before the look; where another look was kept since, nothing is written.
            memory: the memory after the look.
            vintage: the results of the look, where they are to be kept.

        Returns:
            Whether it was written.
        """
        ...

    async def events(self, experiment: str) -> list[VerdictEvent]:
        """The events of an experiment, in order."""
        ...

    async def vintage(self, experiment: str, as_of: float) -> bytes | None:
        """The results of the newest vintage at or before a time; None where no vintage is that old."""
        ...

    async def unsent(self, limit: int) -> list[VerdictEvent]:
        """Events that are not known to be on their topic, those of each experiment in order."""
        ...

    async def note_sent(self, event: VerdictEvent) -> None:
        """Record that an event is on its topic."""
        ...


def is_storable(experiment: str) -> bool:
    """Whether an experiment of that name can be kept; predictions of other programs may name any."""
    try:
        experiment.encode()
    except UnicodeEncodeError:
        return False
    return len(experiment) <= NAME_CHARACTERS and "\0" not in experiment


class VerdictMemoryRow(SQLModel, table=True):
    """One experiment; `document` is its Memory in msgpack, since JSON has no infinity."""

    __tablename__ = "verdict_memory"

    experiment: str = Field(primary_key=True, max_length=NAME_CHARACTERS)
    version: int
    document: bytes = Field(sa_type=LargeBinary)
    vintage_at: float | None = None


class VerdictEventRow(SQLModel, table=True):
    """One event; `document` is the VerdictEvent in JSON, and `sent` says that it is on its topic."""

    __tablename__ = "verdict_event"
    __table_args__ = (UniqueConstraint("experiment", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    experiment: str = Field(max_length=NAME_CHARACTERS)
    number: int
    document: str
    sent: bool = Field(index=True)


class VerdictVintageRow(SQLModel, table=True):
    """One vintage; `results` are compressed by zlib.

    None is ever deleted. `?as_of=` answers the newest one at or before a time, and for any time that has come it
    answers the same bytes for ever: without a vintage the times up to the next one would get the answer before it.
    A vintage takes 2 to 3 kB for two variants and a month of days, 5 kB for 84 days, 12 kB with four variants, and
    15 kB after a year. One an hour comes to 20 to 50 MB a year for an experiment with two variants, 110 MB with four.
    An experiment without news gets none, and `vintage_interval_s` says how many the others get.
    """

    __tablename__ = "verdict_vintage"
    __table_args__ = (UniqueConstraint("experiment", "at"),)

    id: int | None = Field(default=None, primary_key=True)
    experiment: str = Field(max_length=NAME_CHARACTERS)
    at: float
    results: bytes = Field(sa_type=LargeBinary)


class SqlVerdictStore:
    """Verdicts in SQLite or PostgreSQL.

    Args:
        engine: the database.
        timeout_s: longest a question to it may take.
    """

    def __init__(self, engine: AsyncEngine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s

    async def memory(self, experiment: str) -> KeptMemory:
        """The memory of an experiment; an empty one of version 0 before the first write."""
        if not is_storable(experiment):
            return KeptMemory()
        query = select(
            col(VerdictMemoryRow.document), col(VerdictMemoryRow.version), col(VerdictMemoryRow.vintage_at)
        ).where(col(VerdictMemoryRow.experiment) == experiment)
        async with self._transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return KeptMemory()
        document, version, vintage_at = row
        return KeptMemory(msgspec.msgpack.decode(document, type=Memory), version, vintage_at)

    async def write(
        self,
        experiment: str,
        read: KeptMemory,
        memory: Memory,
        vintage: Vintage | None = None,
    ) -> bool:
        """Keep the memory after a look, with its new events, in one transaction."""
        try:
            async with self._transaction() as connection:
                if not await _replace(connection, experiment, read, memory, vintage):
                    return False
                if events := new_events(read, memory):
                    await connection.execute(insert(VerdictEventRow), [_event_row(event) for event in events])
                if vintage is not None:
                    results = zlib.compress(vintage.results)
                    row = insert(VerdictVintageRow).values(experiment=experiment, at=vintage.at, results=results)
                    await connection.execute(row)
        except exc.IntegrityError:
            return False
        return True

    async def events(self, experiment: str) -> list[VerdictEvent]:
        """The events of an experiment, in order."""
        if not is_storable(experiment):
            return []
        query = (
            select(col(VerdictEventRow.document))
            .where(col(VerdictEventRow.experiment) == experiment)
            .order_by(col(VerdictEventRow.number))
        )
        async with self._transaction() as connection:
            documents = (await connection.scalars(query)).all()
        return [_event_in(document) for document in documents]

    async def vintage(self, experiment: str, as_of: float) -> bytes | None:
        """The results of the newest vintage at or before a time; None where no vintage is that old."""
        if not is_storable(experiment):
            return None
        query = (
            select(col(VerdictVintageRow.results))
            .where(col(VerdictVintageRow.experiment) == experiment, col(VerdictVintageRow.at) <= as_of)
            .order_by(col(VerdictVintageRow.at).desc())
            .limit(1)
        )
        async with self._transaction() as connection:
            results = (await connection.scalars(query)).one_or_none()
        return None if results is None else zlib.decompress(results)

    async def unsent(self, limit: int) -> list[VerdictEvent]:
        """Events that are not known to be on their topic, those of each experiment in order."""
        query = (
            select(col(VerdictEventRow.document))
            .where(~col(VerdictEventRow.sent))
            .order_by(col(VerdictEventRow.id))
            .limit(limit)
        )
        async with self._transaction() as connection:
            documents = (await connection.scalars(query)).all()
        return [_event_in(document) for document in documents]

    async def note_sent(self, event: VerdictEvent) -> None:
        """Record that an event is on its topic."""
        change = (
            update(VerdictEventRow)
            .where(col(VerdictEventRow.experiment) == event.experiment, col(VerdictEventRow.number) == event.number)
            .values(sent=True)
        )
        async with self._transaction() as connection:
            await connection.execute(change)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(self._timeout_s), self._engine.begin() as connection:
                yield connection
        except exc.IntegrityError:  # another look was kept meanwhile: the caller handles it
            raise
        except (exc.SQLAlchemyError, OSError) as error:  # of asyncpg both, and a TimeoutError is an OSError
            raise ResultsUnavailable("the database of verdicts does not answer; ask again") from error


class InMemoryVerdictStore:
    """Verdicts in dictionaries, for tests."""

    def __init__(self) -> None:
        self._memories: dict[str, KeptMemory] = {}
        self._vintages: dict[str, dict[float, bytes]] = {}
        self._events: list[VerdictEvent] = []
        self._sent: set[tuple[str, int]] = set()

    async def memory(self, experiment: str) -> KeptMemory:
        """The memory of an experiment; an empty one of version 0 before the first write."""
        return self._memories.get(experiment, KeptMemory())

    async def write(
        self,
        experiment: str,
        read: KeptMemory,
        memory: Memory,
        vintage: Vintage | None = None,
    ) -> bool:
        """Keep the memory after a look, with its new events."""
        kept, vintages = await self.memory(experiment), self._vintages.setdefault(experiment, {})
        if kept.version != read.version or (vintage is not None and vintage.at in vintages):
            return False
        if vintage is not None:
            vintages[vintage.at] = vintage.results
        self._events += new_events(read, memory)
        self._memories[experiment] = KeptMemory(memory, read.version + 1, _newest_vintage(read, vintage))
        return True

    async def events(self, experiment: str) -> list[VerdictEvent]:
        """The events of an experiment, in order."""
        return [event for event in self._events if event.experiment == experiment]

    async def vintage(self, experiment: str, as_of: float) -> bytes | None:
        """The results of the newest vintage at or before a time; None where no vintage is that old."""
        vintages = self._vintages.get(experiment, {})
        newest = max((at for at in vintages if at <= as_of), default=None)
        return None if newest is None else vintages[newest]

    async def unsent(self, limit: int) -> list[VerdictEvent]:
        """Events that are not known to be on their topic, in order."""
        return [event for event in self._events if (event.experiment, event.number) not in self._sent][:limit]

    async def note_sent(self, event: VerdictEvent) -> None:
        """Record that an event is on its topic."""
        self._sent.add((event.experiment, event.number))


@asynccontextmanager
async def open_sql_store(url: str, timeout_s: float = 2.0) -> AsyncIterator[SqlVerdictStore]:
    """A store on the database at `url`, brought up to date."""
    async with open_engine(url, MIGRATIONS) as engine:
        yield SqlVerdictStore(engine, timeout_s)


def new_events(read: KeptMemory, memory: Memory) -> Sequence[VerdictEvent]:
    """The events that a look has added."""
    return memory.events[len(read.memory.events) :]


async def _replace(
    connection: AsyncConnection, experiment: str, read: KeptMemory, memory: Memory, vintage: Vintage | None
) -> bool:
    """Write the memory over the version that was read; false where it is no longer that version."""
    values = {
        "version": read.version + 1,
        "document": msgspec.msgpack.encode(memory),
        "vintage_at": _newest_vintage(read, vintage),
    }
    if not read.version:
        await connection.execute(insert(VerdictMemoryRow).values(experiment=experiment, **values))
        return True
    is_own = (col(VerdictMemoryRow.experiment) == experiment) & (col(VerdictMemoryRow.version) == read.version)
    replaced = await connection.execute(update(VerdictMemoryRow).where(is_own).values(**values))
    return replaced.rowcount == 1


def _newest_vintage(read: KeptMemory, vintage: Vintage | None) -> float | None:
    return read.vintage_at if vintage is None else vintage.at


def _event_row(event: VerdictEvent) -> dict[str, object]:
    document = msgspec.json.encode(event).decode()
    return {"experiment": event.experiment, "number": event.number, "document": document, "sent": False}


def _event_in(document: str) -> VerdictEvent:
    return msgspec.json.decode(document, type=VerdictEvent)
