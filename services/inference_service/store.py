"""Where model versions are kept: rows in SQL, ONNX files by their sha256."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy import UniqueConstraint
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from shared.events import ModelVersion

_SHA256 = re.compile(r"[0-9a-f]{64}")


class VersionStore(Protocol):
    """Model versions. A version is written once; only which one is champion changes."""

    async def add(self, version: ModelVersion) -> bool:
        """Keep a version; false when that model has it already. The first of a model becomes champion."""
        ...

    async def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, oldest first; empty when there is no such model."""
        ...

    async def models(self) -> list[ModelVersion]:
        """All versions of all models, oldest first."""
        ...

    async def promote(self, model: str, version: str) -> bool:
        """Make a version the champion; false when the model has no such version."""
        ...


class VersionRow(SQLModel, table=True):
    """A registered version; `document` is the ModelVersion in JSON."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("model", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(index=True, max_length=200)
    version: str = Field(max_length=64)
    document: str
    registered_at: float


class ChampionRow(SQLModel, table=True):
    """Which version of a model answers when no experiment says otherwise."""

    __tablename__ = "model_champion"

    model: str = Field(primary_key=True, max_length=200)
    version: str = Field(max_length=64)


class SqlVersionStore:
    """Versions in SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, version: ModelVersion) -> bool:
        """Keep a version; false when that model has it already."""
        if any(known.version == version.version for known in await self.versions(version.model)):
            return False
        async with AsyncSession(self._engine) as session:
            document = msgspec.json.encode(version).decode()
            session.add(
                VersionRow(
                    model=version.model,
                    version=version.version,
                    document=document,
                    registered_at=version.registered_at,
                )
            )
            await session.commit()
        async with AsyncSession(self._engine) as session:
            session.add(ChampionRow(model=version.model, version=version.version))
            try:
                await session.commit()
            except IntegrityError:  # the model has its champion
                await session.rollback()
        return True

    async def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, oldest first."""
        return [version for version in await self.models() if version.model == model]

    async def models(self) -> list[ModelVersion]:
        """All versions of all models, oldest first."""
        async with AsyncSession(self._engine) as session:
            rows = (await session.exec(select(VersionRow).order_by(col(VersionRow.id)))).all()
            champions = {row.model: row.version for row in (await session.exec(select(ChampionRow))).all()}
        versions = [msgspec.json.decode(row.document, type=ModelVersion) for row in rows]
        return [
            msgspec.structs.replace(version, champion=champions.get(version.model) == version.version)
            for version in versions
        ]

    async def promote(self, model: str, version: str) -> bool:
        """Make a version the champion."""
        if not any(known.version == version for known in await self.versions(model)):
            return False
        async with AsyncSession(self._engine) as session:
            await session.merge(ChampionRow(model=model, version=version))
            await session.commit()
        return True


class InMemoryVersionStore:
    """Versions in a list, for tests."""

    def __init__(self) -> None:
        self._versions: list[ModelVersion] = []
        self._champions: dict[str, str] = {}

    async def add(self, version: ModelVersion) -> bool:
        """Keep a version; false when that model has it already."""
        if any(known.version == version.version for known in await self.versions(version.model)):
            return False
        self._versions.append(version)
        self._champions.setdefault(version.model, version.version)
        return True

    async def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, oldest first."""
        return [version for version in await self.models() if version.model == model]

    async def models(self) -> list[ModelVersion]:
        """All versions of all models, oldest first."""
        return [
            msgspec.structs.replace(version, champion=self._champions[version.model] == version.version)
            for version in self._versions
        ]

    async def promote(self, model: str, version: str) -> bool:
        """Make a version the champion."""
        if not any(known.version == version for known in await self.versions(model)):
            return False
        self._champions[model] = version
        return True


@asynccontextmanager
async def open_sql_store(url: str) -> AsyncIterator[SqlVersionStore]:
    """A store on the database at `url`, whose tables are made when they are missing."""
    engine = create_async_engine(url)
    tables = [SQLModel.metadata.tables[name] for name in ("model_version", "model_champion")]
    try:
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: SQLModel.metadata.create_all(sync, tables=tables))
        yield SqlVersionStore(engine)
    finally:
        await engine.dispose()


class ModelFiles:
    """ONNX files, each under the sha256 of its bytes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def write(self, version: str, content: bytes) -> None:
        """Keep a file; it is complete on disk, or not there."""
        temporary = self._folder / f"{version}.new"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path(version))

    def read(self, version: str) -> bytes:
        """The file of a version.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._path(version).read_bytes()

    def _path(self, version: str) -> Path:
        if _SHA256.fullmatch(version) is None:
            raise FileNotFoundError(version)
        return self._folder / f"{version}.onnx"
