"""What the router knows of models and views: read again every few seconds, its last copy kept on disk.

Predictions read it in memory, so they go on while the inference service restarts.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from services.ab_router.clients import CallError, Features, Inference, Needs
from services.ab_router.errors import UnknownModelError
from shared.events import ModelVersion
from shared.problems import Unavailable

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
    """Registered versions, and what every view needs.

    Args:
        inference: where versions are registered.
        features: where views are defined.
        path: file for the last good copy.
        refresh_s: how often both are read again.
    """

    def __init__(self, inference: Inference, features: Features, path: Path, refresh_s: float) -> None:
        self._inference = inference
        self._features = features
        self._path = path
        self._refresh_s = refresh_s
        self._models: dict[str, Model] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._copy = Copy()
        self.fault = ""
        """Why the versions could not be read again; empty when they could."""

    async def __aenter__(self) -> Self:
        try:
            self._take(msgspec.json.decode(self._path.read_bytes(), type=Copy))
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            _LOG.warning("the kept copy of the catalog can't be read and is made anew: %s", error)
        await self.refresh()
        self._loop = asyncio.create_task(self._keep_fresh())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._loop, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, name: str) -> Model:
        """A model; one that is not known yet is asked for once more.

        Raises:
            UnknownModelError: no version of it is registered.
            Unavailable: it is not known, and the inference service can't be asked.
        """
        if name not in self._models:
            await self.refresh()
        model = self._models.get(name)
        if model is not None:
            return model
        if self.fault:
            raise Unavailable(f"model {name} is not known yet, and {self.fault}")
        raise UnknownModelError(f"there is no model {name}")

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

    async def refresh(self) -> None:
        """Read versions and views again; what can't be read stays as it was. Concurrent callers share one reading."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            await self.refresh()

    async def _refresh(self) -> None:
        versions, needs = self._copy.versions, self._copy.needs
        fault = ""
        try:
            versions = await self._inference.versions()
        except CallError as error:
            fault = f"the inference service can't be asked: {error}"
        try:
            needs = await self._features.needs()
        except CallError as error:
            _LOG.debug("views stay as they were: %s", error)  # the client has warned once
        if fault and fault != self.fault:
            _LOG.warning("%s", fault)
        self.fault = fault
        copy = Copy(versions, needs)
        if copy != self._copy:
            self._take(copy)
            self._keep(copy)

    def _take(self, copy: Copy) -> None:
        self._copy = copy
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
