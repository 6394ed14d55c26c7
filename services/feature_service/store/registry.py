"""The registry of views' versions: rows in SQL, so that all processes know the same versions, old ones included."""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Field, SQLModel, UniqueConstraint, col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from contender.features import KeptVersion
from services.feature_service.history import HistoryCutover
from shared.sql import open_engine

MIGRATIONS = Path(__file__).parents[1] / "migrations"
_STATE = 1


class RegistryState(msgspec.Struct, frozen=True):
    """The registered versions.

    `cutovers` has per `view@number` the time up to which events come from files. `generation` grows with every rebuild,
    `revision` with every change. `epoch` names the store that the rings lie in; empty while none is known.
    """

    versions: list[KeptVersion] = []
    cutovers: dict[str, HistoryCutover] = {}
    generation: int = 0
    revision: int = 0
    epoch: str = ""


class Registry(Protocol):
    """Versions of views. A version never changes, except for its descriptions."""

    async def load(self) -> RegistryState:
        """Everything registered, in the order of registration."""
        ...

    async def keep(self, versions: Sequence[KeptVersion], cutovers: Mapping[str, HistoryCutover]) -> bool:
        """Add versions and change the descriptions of known ones.

        Args:
            versions: all of a catalogue's, or some.
            cutovers: per new version, `view@number`, the time up to which its history comes from files.

        Returns:
            False where another process has used a number for another meaning; load again and retry.
        """
        ...

    async def rebuild(self, cutovers: Mapping[str, HistoryCutover]) -> int:
        """Begin a new generation of rings and return its number.

        Args:
            cutovers: per version, `view@number`, the time up to which history comes from files; replaces all others.
        """
        ...

    async def move(self, known: str, epoch: str, cutovers: Mapping[str, HistoryCutover]) -> bool:
        """Record that the rings lie in another store, such as an emptied one; False if another process has done so.

        Args:
            known: the epoch registered so far. Unless it is empty, its rings are lost and a new generation begins.
            epoch: the store's.
            cutovers: as for `rebuild`.
        """
        ...

    async def retire(self, labels: Collection[str]) -> None:
        """Permanently retire versions, `view@number`; ignores unknown and retired ones."""
        ...


class FeatureVersionRow(SQLModel, table=True):
    """A version of a view; `document` is its definition in JSON."""

    __tablename__ = "feature_version"
    __table_args__ = (UniqueConstraint("name", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=200)
    number: int
    digest: str = Field(max_length=64)
    document: str
    seam: str | None = None


class FeatureRetirementRow(SQLModel, table=True):
    """A retired version; `newest` was the view's newest number at that time."""

    __tablename__ = "feature_retirement"
    __table_args__ = (UniqueConstraint("name", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=200)
    number: int
    newest: int


class FeatureStoreRow(SQLModel, table=True):
    """The single row that names the store of the rings."""

    __tablename__ = "feature_store"

    id: int = Field(primary_key=True)
    epoch: str = Field(default="", max_length=64)


class FeatureStateRow(SQLModel, table=True):
    """The single row that counts changes and rebuilds."""

    __tablename__ = "feature_state"

    id: int = Field(primary_key=True)
    generation: int = 0
    revision: int = 0


class SqlRegistry:
    """Versions in SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def load(self) -> RegistryState:
        """Everything registered, in the order of registration."""
        async with AsyncSession(self._engine) as session:
            # Read first: rows may be newer than the revision, never older, and others write between two reads.
            state = await session.get(FeatureStateRow, _STATE) or FeatureStateRow(id=_STATE)
            rows = (await session.exec(select(FeatureVersionRow).order_by(col(FeatureVersionRow.id)))).all()
            retired = {(row.name, row.number): row.newest for row in await session.exec(select(FeatureRetirementRow))}
            store = await session.get(FeatureStoreRow, _STATE) or FeatureStoreRow(id=_STATE)
        versions = [
            KeptVersion(
                row.name,
                row.number,
                row.digest,
                msgspec.json.decode(row.document),
                retired.get((row.name, row.number), 0),
            )
            for row in rows
        ]
        cutovers = {
            f"{row.name}@{row.number}": msgspec.json.decode(row.seam, type=HistoryCutover) for row in rows if row.seam
        }
        return RegistryState(versions, cutovers, state.generation, state.revision, store.epoch)

    async def keep(self, versions: Sequence[KeptVersion], cutovers: Mapping[str, HistoryCutover]) -> bool:
        """Add versions and change the descriptions of known ones."""
        async with AsyncSession(self._engine) as session:
            try:
                kept = await self._put(session, versions, cutovers)
                await session.commit()
            except IntegrityError:  # another process was faster
                await session.rollback()
                return False
        return kept

    async def _put(
        self, session: AsyncSession, versions: Sequence[KeptVersion], cutovers: Mapping[str, HistoryCutover]
    ) -> bool:
        rows = (await session.exec(select(FeatureVersionRow))).all()
        known = {(row.name, row.number): row for row in rows}
        if any(
            (row := known.get((version.name, version.number))) and row.digest != version.digest for version in versions
        ):
            return False
        for version in versions:
            document = msgspec.json.encode(version.document).decode()
            row = known.get((version.name, version.number))
            if row is None:
                row = FeatureVersionRow(
                    name=version.name, number=version.number, digest=version.digest, document=document
                )
                row.seam = msgspec.json.encode(cutovers[version.label]).decode() if version.label in cutovers else None
            row.document = document
            session.add(row)
        await self._count(session, revision=1)
        return True

    async def rebuild(self, cutovers: Mapping[str, HistoryCutover]) -> int:
        """Begin a new generation of rings and return its number."""
        async with AsyncSession(self._engine) as session:
            state = await self._count(session, generation=1, revision=1)
            await _keep_cutovers(session, cutovers)
            generation = state.generation
            await session.commit()
        return generation

    async def move(self, known: str, epoch: str, cutovers: Mapping[str, HistoryCutover]) -> bool:
        """Record that the rings lie in another store."""
        row = (col(FeatureStoreRow.id) == _STATE, col(FeatureStoreRow.epoch) == known)
        async with AsyncSession(self._engine) as session:
            try:
                # Write first: SQLite waits for its lock at the start of a transaction, but not once it has read.
                if not (await session.exec(update(FeatureStoreRow).where(*row).values(epoch=epoch))).rowcount:
                    if known or await session.get(FeatureStoreRow, _STATE) is not None:
                        return False
                    session.add(FeatureStoreRow(id=_STATE, epoch=epoch))
                await self._count(session, revision=1, generation=1 if known else 0)
                if known:
                    await _keep_cutovers(session, cutovers)
                await session.commit()
            except IntegrityError:  # another process was faster
                await session.rollback()
                return False
        return True

    async def retire(self, labels: Collection[str]) -> None:
        """Permanently retire versions."""
        versions = (await self.load()).versions
        async with AsyncSession(self._engine) as session:
            try:
                for version, newest in _retiring(versions, labels):
                    session.add(FeatureRetirementRow(name=version.name, number=version.number, newest=newest))
                await self._count(session, revision=1)
                await session.commit()
            except IntegrityError:  # another process has retired a version at the same time
                await session.rollback()
            else:
                return
        await self.retire(labels)

    async def _count(self, session: AsyncSession, *, revision: int, generation: int = 0) -> FeatureStateRow:
        """Increment in the database, so that concurrent processes lose no change."""
        increment = (
            update(FeatureStateRow)
            .where(col(FeatureStateRow.id) == _STATE)
            .values(
                revision=col(FeatureStateRow.revision) + revision,
                generation=col(FeatureStateRow.generation) + generation,
            )
        )
        if not (await session.exec(increment)).rowcount:
            with suppress(IntegrityError):  # another process has added the row at the same time
                async with session.begin_nested():
                    session.add(FeatureStateRow(id=_STATE))
            await session.exec(increment)
        return await session.get_one(FeatureStateRow, _STATE, populate_existing=True)


async def _keep_cutovers(session: AsyncSession, cutovers: Mapping[str, HistoryCutover]) -> None:
    for row in (await session.exec(select(FeatureVersionRow))).all():
        cutover = cutovers.get(f"{row.name}@{row.number}")
        row.seam = None if cutover is None else msgspec.json.encode(cutover).decode()


class InMemoryRegistry:
    """Versions in a list, for tests."""

    def __init__(self) -> None:
        self._registered = RegistryState()

    async def load(self) -> RegistryState:
        """Everything registered."""
        return self._registered

    async def keep(self, versions: Sequence[KeptVersion], cutovers: Mapping[str, HistoryCutover]) -> bool:
        """Add versions and change the descriptions of known ones."""
        known = {version.label: version for version in self._registered.versions}
        if any(version.label in known and known[version.label].digest != version.digest for version in versions):
            return False
        kept = {
            **{label: cutover for label, cutover in cutovers.items() if label not in known},
            **self._registered.cutovers,
        }
        known.update({version.label: version for version in versions})
        self._change(versions=list(known.values()), cutovers=kept)
        return True

    async def rebuild(self, cutovers: Mapping[str, HistoryCutover]) -> int:
        """Begin a new generation of rings."""
        self._change(generation=self._registered.generation + 1, cutovers=dict(cutovers))
        return self._registered.generation

    async def move(self, known: str, epoch: str, cutovers: Mapping[str, HistoryCutover]) -> bool:
        """Record that the rings lie in another store."""
        if self._registered.epoch != known:
            return False
        if known:
            await self.rebuild(cutovers)
        self._change(epoch=epoch)
        return True

    async def retire(self, labels: Collection[str]) -> None:
        """Permanently retire versions."""
        newest = {version.label: newest for version, newest in _retiring(self._registered.versions, labels)}
        self._change(
            versions=[
                msgspec.structs.replace(version, retired_after=newest.get(version.label, version.retired_after))
                for version in self._registered.versions
            ]
        )

    def _change(self, **changes: object) -> None:
        revision = self._registered.revision + 1
        self._registered = msgspec.structs.replace(self._registered, revision=revision, **changes)


def _retiring(versions: Sequence[KeptVersion], labels: Collection[str]) -> Iterator[tuple[KeptVersion, int]]:
    """The named versions that are not retired yet, each with its view's newest number."""
    for version in versions:
        if version.label in labels and not version.retired_after:
            yield version, max(other.number for other in versions if other.name == version.name)


@asynccontextmanager
async def open_sql_registry(url: str) -> AsyncIterator[SqlRegistry]:
    """A registry on the database at `url`, brought up to date."""
    async with open_engine(url, MIGRATIONS) as engine:
        yield SqlRegistry(engine)
