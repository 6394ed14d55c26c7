"""Where model versions are kept: rows in SQL, ONNX files by their sha256."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from sqlalchemy import Select, UniqueConstraint, and_, insert, select, text
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import Field, SQLModel, col

from services.inference_service.errors import RegistryError
from shared.events import ModelVersion
from shared.sql import open_engine

_SHA256 = re.compile(r"[0-9a-f]{64}")


class VersionStore(Protocol):
    """Model versions. A version is written once; only which one is champion changes.

    Every method raises RegistryError when the versions can't be reached.
    """

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
        row = insert(VersionRow).values(
            model=version.model,
            version=version.version,
            document=msgspec.json.encode(version).decode(),
            registered_at=version.registered_at,
        )
        try:
            async with self._transaction() as connection:
                await connection.execute(row)
                await connection.execute(_FIRST_CHAMPION, {"model": version.model, "version": version.version})
        except IntegrityError:
            return False
        return True

    async def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, oldest first."""
        return await self._read(_VERSIONS.where(col(VersionRow.model) == model))

    async def models(self) -> list[ModelVersion]:
        """All versions of all models, oldest first."""
        return await self._read(_VERSIONS)

    async def promote(self, model: str, version: str) -> bool:
        """Make a version the champion."""
        async with self._transaction() as connection:
            moved = await connection.execute(_PROMOTE, {"model": model, "version": version})
        return moved.rowcount == 1

    async def _read(self, query: Select[str, bool]) -> list[ModelVersion]:
        async with self._transaction() as connection:
            rows = (await connection.execute(query.order_by(col(VersionRow.id)))).all()
        return [
            msgspec.structs.replace(msgspec.json.decode(document, type=ModelVersion), champion=champion)
            for document, champion in rows
        ]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (OperationalError, InterfaceError, ProgrammingError, OSError) as error:
            raise RegistryError(f"the registry can't be reached ({type(error).__name__})") from error


# One statement each, so that nobody sees a model without its champion.
_VERSIONS = select(col(VersionRow.document), col(ChampionRow.model).is_not(None)).outerjoin(
    ChampionRow,
    and_(col(ChampionRow.model) == col(VersionRow.model), col(ChampionRow.version) == col(VersionRow.version)),
)
_FIRST_CHAMPION = text(
    "INSERT INTO model_champion (model, version) VALUES (:model, :version) ON CONFLICT (model) DO NOTHING"
)
_PROMOTE = text(
    "INSERT INTO model_champion (model, version)"
    " SELECT model, version FROM model_version WHERE model = :model AND version = :version"
    " ON CONFLICT (model) DO UPDATE SET version = excluded.version"
)


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
    async with open_engine(url, ["model_version", "model_champion"]) as engine:
        yield SqlVersionStore(engine)


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
