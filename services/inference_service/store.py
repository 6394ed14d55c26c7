"""The store of model versions and their promotions: rows in SQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
from sqlalchemy import LargeBinary, Select, UniqueConstraint, and_, cast, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import Field, SQLModel, col

from contender.contracts.inference_service import ModelVersion, PromotionRecord, VersionDetails
from services.inference_service.domain.bounds import KEPT_DEPTH_LIMIT, depth_of
from services.inference_service.errors import RegistryError
from shared.sql import open_engine

MIGRATIONS = Path(__file__).with_name("migrations")


@dataclass(frozen=True, slots=True)
class UnreadableVersion:
    """A row of the registry that can't be read, and why."""

    model: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Versions, oldest first, and the rows among them that can't be read."""

    versions: list[ModelVersion]
    unreadable: list[UnreadableVersion] = field(default_factory=list)


class VersionStore(Protocol):
    """Model versions. A version is written once; only which one is champion changes.

    Every method raises RegistryError when the versions can't be reached.
    """

    async def add(self, version: VersionDetails) -> bool:
        """Keep a version; false when that model has it already. The first of a model becomes champion."""
        ...

    async def versions(self, model: str) -> Listing:
        """All versions of a model; empty when there is no such model."""
        ...

    async def models(self) -> Listing:
        """All versions of all models."""
        ...

    async def manifest(self, model: str, version: str) -> dict[str, object]:
        """The manifest of a version; empty when the model has no such version."""
        ...

    async def promote(self, record: PromotionRecord) -> bool:
        """Keep a promotion and make its version the champion; false when the model has one of that number."""
        ...

    async def promotions(self, model: str) -> list[PromotionRecord]:
        """All promotions of a model, oldest first."""
        ...

    async def champion(self, model: str) -> str | None:
        """The name of a model's champion, even if its row can't be read; None when there is no such model."""
        ...


class VersionRow(SQLModel, table=True):
    """A registered version; `document` is its VersionDetails in JSON."""

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


class PromotionRow(SQLModel, table=True):
    """One promotion; `document` is its PromotionRecord in JSON."""

    __tablename__ = "model_promotion"
    __table_args__ = (UniqueConstraint("model", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    model: str = Field(index=True, max_length=200)
    number: int
    document: str
    at: float


class SqlVersionStore:
    """Versions in SQLite or PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # SQLite takes any bytes as text, and refuses the whole result where one row's are not UTF-8.
        raw: Any = (
            cast(VersionRow.document, LargeBinary) if engine.dialect.name == "sqlite" else col(VersionRow.document)
        )
        self._documents = select(raw)
        self._rows = select(
            col(VersionRow.model), col(VersionRow.version), raw, col(ChampionRow.model).is_not(None)
        ).outerjoin(ChampionRow, _IS_CHAMPION)

    async def add(self, version: VersionDetails) -> bool:
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

    async def versions(self, model: str) -> Listing:
        """All versions of a model."""
        return await self._read(self._rows.where(col(VersionRow.model) == model))

    async def models(self) -> Listing:
        """All versions of all models."""
        return await self._read(self._rows)

    async def manifest(self, model: str, version: str) -> dict[str, object]:
        """The manifest of a version."""
        query = self._documents.where(col(VersionRow.model) == model, col(VersionRow.version) == version)
        async with self._transaction() as connection:
            document = await connection.scalar(query)
        return {} if document is None else msgspec.json.decode(document, type=VersionDetails).manifest

    async def promote(self, record: PromotionRecord) -> bool:
        """Keep a promotion and make its version the champion; false when the model has one of that number."""
        document = msgspec.json.encode(record).decode()
        row = insert(PromotionRow).values(model=record.model, number=record.number, document=document, at=record.at)
        try:
            async with self._transaction() as connection:
                await connection.execute(row)
                await connection.execute(_PROMOTE, {"model": record.model, "version": record.version})
        except IntegrityError:
            return False
        return True

    async def promotions(self, model: str) -> list[PromotionRecord]:
        """All promotions of a model, oldest first."""
        query = select(col(PromotionRow.document)).where(col(PromotionRow.model) == model)
        async with self._transaction() as connection:
            documents = (await connection.scalars(query.order_by(col(PromotionRow.number)))).all()
        return [msgspec.json.decode(document, type=PromotionRecord) for document in documents]

    async def champion(self, model: str) -> str | None:
        """The name of a model's champion."""
        async with self._transaction() as connection:
            name: str | None = await connection.scalar(
                select(col(ChampionRow.version)).where(col(ChampionRow.model) == model)
            )
        return name

    async def _read(self, query: Select[str, str, Any, bool]) -> Listing:
        async with self._transaction() as connection:
            rows = (await connection.execute(query.order_by(col(VersionRow.id)))).all()
        listing = Listing([])
        for model, version, document, champion in rows:
            try:
                listing.versions.append(_decode(document, champion=champion))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                listing.unreadable.append(UnreadableVersion(model, version, str(error)))
        return listing

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except IntegrityError:  # its meaning depends on the statement: the caller handles it
            raise
        except (DBAPIError, OSError) as error:
            raise RegistryError(f"the registry can't be reached ({type(error).__name__})") from error


def _decode(document: bytes | str, *, champion: bool) -> ModelVersion:
    content = document.encode() if isinstance(document, str) else document
    if depth_of(content, KEPT_DEPTH_LIMIT) > KEPT_DEPTH_LIMIT:  # it could be read, but not be written any more
        raise msgspec.DecodeError(f"it nests lists and objects more than {KEPT_DEPTH_LIMIT} deep")
    return msgspec.structs.replace(msgspec.json.decode(content, type=ModelVersion), champion=champion)


# One query reads versions and champions, so that no reader sees a model without a champion.
_IS_CHAMPION = and_(
    col(ChampionRow.model) == col(VersionRow.model), col(ChampionRow.version) == col(VersionRow.version)
)
_FIRST_CHAMPION = text(
    "INSERT INTO model_champion (model, version) VALUES (:model, :version) ON CONFLICT (model) DO NOTHING"
)
_PROMOTE = text(
    "INSERT INTO model_champion (model, version) VALUES (:model, :version)"
    " ON CONFLICT (model) DO UPDATE SET version = excluded.version"
)


class InMemoryVersionStore:
    """Versions in a list, for tests."""

    def __init__(self) -> None:
        self._versions: list[VersionDetails] = []
        self._champions: dict[str, str] = {}
        self._promotions: list[PromotionRecord] = []

    async def add(self, version: VersionDetails) -> bool:
        """Keep a version; false when that model has it already."""
        if self._has(version.model, version.version):
            return False
        self._versions.append(version)
        self._champions.setdefault(version.model, version.version)
        return True

    async def versions(self, model: str) -> Listing:
        """All versions of a model."""
        return Listing([version for version in self._marked() if version.model == model])

    async def models(self) -> Listing:
        """All versions of all models."""
        return Listing(self._marked())

    async def manifest(self, model: str, version: str) -> dict[str, object]:
        """The manifest of a version."""
        known = (known for known in self._versions if (known.model, known.version) == (model, version))
        return next((details.manifest for details in known), {})

    async def promote(self, record: PromotionRecord) -> bool:
        """Keep a promotion and make its version the champion; false when the model has one of that number."""
        if record.number in [known.number for known in await self.promotions(record.model)]:
            return False
        self._promotions.append(record)
        self._champions[record.model] = record.version
        return True

    async def promotions(self, model: str) -> list[PromotionRecord]:
        """All promotions of a model, oldest first."""
        return [record for record in self._promotions if record.model == model]

    async def champion(self, model: str) -> str | None:
        """The name of a model's champion."""
        return self._champions.get(model)

    def _has(self, model: str, version: str) -> bool:
        return any((known.model, known.version) == (model, version) for known in self._versions)

    def _marked(self) -> list[ModelVersion]:
        return [
            _decode(msgspec.json.encode(version), champion=self._champions[version.model] == version.version)
            for version in self._versions
        ]


@asynccontextmanager
async def open_sql_store(url: str) -> AsyncIterator[SqlVersionStore]:
    """A store on the database at `url`, brought up to date."""
    async with open_engine(url, MIGRATIONS) as engine:
        yield SqlVersionStore(engine)
