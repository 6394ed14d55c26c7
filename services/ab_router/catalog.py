"""What the router knows of models and views: read again every few seconds, its last copy kept on disk.

Predictions read it in memory, so they go on while the inference service restarts.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from contender.contracts.inference_service import ModelVersion
from services.ab_router.clients import CallError, Features, Inference, Needs
from services.ab_router.errors import UnknownModelError
from services.ab_router.reading import SharedReading
from shared.background import run_every
from shared.errors import Unavailable, shortened

_LOG = logging.getLogger(__name__)
REQUEST = "request"


@dataclass(frozen=True)
class Model:
    """A model's versions by name, and its champion."""

    name: str
    versions: Mapping[str, ModelVersion]
    champion: ModelVersion


class Copy(msgspec.Struct, frozen=True):
    """What is kept on disk."""

    versions: list[ModelVersion] = []
    needs: dict[str, Needs] = {}


class Catalog:
    """Registered versions, and what every view needs. Both are read on their own: neither waits for the other.

    Args:
        inference: where versions are registered.
        features: where views are defined.
        path: file for the last good copy.
        refresh_s: how often both are read again.
        reread_s: least seconds between two readings.
    """

    def __init__(
        self, inference: Inference, features: Features, path: Path, refresh_s: float, reread_s: float = 0.0
    ) -> None:
        self._inference = inference
        self._features = features
        self._path = path
        self._refresh_s = refresh_s
        self._versions = SharedReading(self._read_versions, reread_s)
        self._views = SharedReading(self._read_views, reread_s)
        self._models: dict[str, Model] = {}
        self._copy = Copy()
        self._open = AsyncExitStack()
        self.serial = 0
        """Changes with all that the catalog holds."""
        self.fault = ""
        """Why the versions could not be read again, for callers to read; empty when they could."""

    async def __aenter__(self) -> Self:
        try:
            self._take(msgspec.json.decode(self._path.read_bytes(), type=Copy))
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            _LOG.warning("the kept copy of the catalog can't be read and is made anew: %s", error)
        await self.refresh()
        for reading in (self._versions, self._views):
            self._open.push_async_callback(reading.close)
            await self._open.enter_async_context(run_every(reading.fresh, self._refresh_s, first_s=self._refresh_s))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    @property
    def silent_s(self) -> float:
        """Seconds for which no call to the inference service has been answered; it is asked at every refresh."""
        return self._inference.silent_s

    async def find(self, name: str, versions: Collection[str] = ()) -> Model:
        """A model; where it, or one of the versions, is not known, by a reading that begins after this call.

        Raises:
            UnknownModelError: no version of it is registered.
            Unavailable: it, or one of the versions, is not known, and the inference service can't be asked.
        """
        if self._lacks(name, versions):
            await self._versions.fresh()
            if self.fault and self._lacks(name, versions):
                raise Unavailable(f"whether {shortened(name)} is registered can't be said: {self.fault}")
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(f"there is no model {shortened(name)}")
        return model

    def _lacks(self, name: str, versions: Collection[str]) -> bool:
        model = self._models.get(name)
        return model is None or any(version not in model.versions for version in versions)

    def needs(self, version: ModelVersion) -> tuple[list[str], Needs]:
        """The features that a version is served, and all that they need.

        A view that is not known yet is left out: its features can't be had.
        """
        references: list[str] = []
        join_keys: dict[str, None] = {}
        request: dict[str, str] = {}
        for source in dict.fromkeys(column.source for column in version.inputs):  # columns may share a feature
            needs = self._copy.needs.get(source.partition(":")[0])
            if source != REQUEST and needs is not None:
                references.append(source)
                join_keys.update(dict.fromkeys(needs.join_keys))
                request.update(needs.request)
        return references, Needs(list(join_keys), request)

    def request_columns(self, source: str) -> list[str]:
        """The columns of the request that a feature's view is computed from."""
        needs = self._copy.needs.get(source.partition(":")[0])
        return list(needs.request) if needs else []

    async def refresh(self) -> None:
        """Read versions and views again; what can't be read stays as it was."""
        await asyncio.gather(self._versions.fresh(), self._views.fresh())

    async def _read_versions(self) -> None:
        try:
            versions = await self._inference.versions()
        except CallError as error:
            _LOG.debug("versions stay as they were: %s", error)  # the caller has warned once
            self.fault = "the registered models can't be read at the moment"
            return
        self.fault = ""
        self._replace(versions=versions)
        sources = {column.source for version in versions for column in version.inputs} - {REQUEST}
        if any(source.partition(":")[0] not in self._copy.needs for source in sources):
            self._views.begin()  # a version may need a view that was defined just now

    async def _read_views(self) -> None:
        try:
            self._replace(needs=await self._features.needs())
        except CallError as error:
            _LOG.debug("views stay as they were: %s", error)

    def _replace(self, **changes: object) -> None:
        copy = msgspec.structs.replace(self._copy, **changes)
        if copy != self._copy:
            self._take(copy)
            self._keep(copy)

    def _take(self, copy: Copy) -> None:
        self._copy = copy
        self.serial += 1
        by_name: dict[str, dict[str, ModelVersion]] = {}
        for version in copy.versions:
            by_name.setdefault(version.model, {})[version.version] = version
        self._models = {name: Model(name, versions, _champion(versions)) for name, versions in by_name.items()}

    def _keep(self, copy: Copy) -> None:
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode(copy))
            new.replace(self._path)
        except OSError as error:
            _LOG.warning("the catalog's copy can't be written: %s", error)


def _champion(versions: Mapping[str, ModelVersion]) -> ModelVersion:
    return next((version for version in versions.values() if version.champion), next(iter(versions.values())))
