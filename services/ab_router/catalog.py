"""The registered models and the inputs of views: read again every few seconds, with the last copy on disk.

Predictions read them in memory, so they go on while the inference service restarts.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from contender.contracts.feature_ref import FeatureRef
from contender.contracts.inference_service import ModelVersion, Promotion
from contender.contracts.values import REQUEST
from services.ab_router.clients import CallError, Features, Inference, ViewInputs
from services.ab_router.errors import UnknownModelError
from shared.background import SharedReading, run_every
from shared.errors import Unavailable, shortened
from shared.logs import logger

_LOG = logger(__name__)


@dataclass(frozen=True)
class Model:
    """A model's versions by name, and its champion."""

    name: str
    versions: Mapping[str, ModelVersion]
    champion: ModelVersion


class CatalogCopy(msgspec.Struct, frozen=True):
    """The file on disk."""

    versions: list[ModelVersion] = []
    inputs: dict[str, ViewInputs] = msgspec.field(default_factory=dict, name="needs")


class Catalog:
    """Registered versions, and the inputs of every view. Each is read on its own: neither waits for the other.

    Args:
        inference: where versions are registered.
        features: where views are defined.
        path: file for the last good copy.
        refresh_s: how often both are read again.
        reread_s: least seconds between two readings.
        start_wait_s: longest wait for the first readings; then the last good copy is used.
    """

    def __init__(
        self,
        inference: Inference,
        features: Features,
        path: Path,
        refresh_s: float,
        reread_s: float = 0.0,
        *,
        start_wait_s: float = 2.0,
    ) -> None:
        self._inference = inference
        self._features = features
        self._path = path
        self._refresh_s = refresh_s
        self._start_wait_s = start_wait_s
        self._versions = SharedReading(self._read_versions, reread_s)
        self._views = SharedReading(self._read_views, reread_s)
        self._models: dict[str, Model] = {}
        self._copy = CatalogCopy()
        self._open = AsyncExitStack()
        self.serial = 0
        """Changes with the catalog's content."""
        self.fault = ""
        """Why the last reading of the versions failed, for callers to read; empty when it did not."""

    async def __aenter__(self) -> Self:
        try:
            self._replace(msgspec.json.decode(self._path.read_bytes(), type=CatalogCopy))
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
            _LOG.warning("the catalog's file can't be read and will be written again", error=str(error))
        with suppress(TimeoutError):  # the readings go on beside the copy
            async with asyncio.timeout(self._start_wait_s):
                await self.refresh()
        for reading in (self._versions, self._views):
            self._open.push_async_callback(reading.close)
            await self._open.enter_async_context(run_every(reading.fresh, self._refresh_s, first_s=self._refresh_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def silent_s(self) -> float:
        """Seconds for which no call to the inference service has been answered; it is asked at every refresh."""
        return self._inference.silent_s

    async def find(self, name: str, versions: Collection[str] = ()) -> Model:
        """A model. If it or one of the versions is unknown, this waits for a reading that begins after the call.

        Raises:
            UnknownModelError: no version of it is registered.
            Unavailable: it, or one of the versions, is unknown, and the inference service does not answer.
        """
        if self._lacks(name, versions):
            await self._versions.fresh()
            if self.fault and self._lacks(name, versions):
                raise Unavailable(f"the router can't tell whether {shortened(name)} is registered: {self.fault}")
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(f"there is no model {shortened(name)}")
        return model

    def known(self, name: str) -> Model | None:
        """A model as it was read last; None for an unknown one."""
        return self._models.get(name)

    async def reread(self) -> bool:
        """Whether the versions could be read just now, with the champions of this moment."""
        await self._versions.fresh()
        return not self.fault

    async def promote(self, name: str, promotion: Promotion) -> None:
        """Make a version the champion of a model, and read the versions again.

        Raises:
            QuestionRefusedError: the model has no such version.
            CallError: the inference service does not answer; the version may have become the champion all the same.
        """
        await self._inference.promote(name, promotion)
        await self._versions.fresh()

    def _lacks(self, name: str, versions: Collection[str]) -> bool:
        model = self._models.get(name)
        return model is None or any(version not in model.versions for version in versions)

    def served_features(self, version: ModelVersion) -> tuple[list[str], ViewInputs]:
        """The features that a version is served, and all inputs of their views.

        Features of a view that is not known yet are left out.
        """
        references: list[str] = []
        join_keys: dict[str, None] = {}
        request: dict[str, str] = {}
        for source in dict.fromkeys(column.source for column in version.inputs):  # columns may share a feature
            inputs = self._inputs_of(source)
            if source != REQUEST and inputs is not None:
                references.append(source)
                join_keys.update(dict.fromkeys(inputs.join_keys))
                request.update(inputs.request)
        return references, ViewInputs(list(join_keys), request)

    def request_columns(self, source: str) -> list[str]:
        """The columns of the request that a feature's view is computed from."""
        inputs = self._inputs_of(source)
        return list(inputs.request) if inputs else []

    def _inputs_of(self, source: str) -> ViewInputs | None:
        return self._copy.inputs.get(FeatureRef.parse(source).label)

    async def refresh(self) -> None:
        """Read versions and views again; whatever can't be read stays as it was."""
        await asyncio.gather(self._versions.fresh(), self._views.fresh())

    async def _read_versions(self) -> None:
        try:
            versions = await self._inference.versions()
        except CallError as error:
            _LOG.debug("versions stay as they were", error=str(error))  # the caller has warned once
            self.fault = "the registered models can't be read at the moment"
            return
        self.fault = ""
        self._keep(msgspec.structs.replace(self._copy, versions=versions))
        sources = {column.source for version in versions for column in version.inputs} - {REQUEST}
        if any(self._inputs_of(source) is None for source in sources):
            self._views.begin()  # a version may need a view that was defined just now

    async def _read_views(self) -> None:
        try:
            inputs = await self._features.view_inputs()
        except CallError as error:
            _LOG.debug("views stay as they were", error=str(error))
        else:
            self._keep(msgspec.structs.replace(self._copy, inputs=inputs))

    def _replace(self, copy: CatalogCopy) -> None:
        self._copy = copy
        self.serial += 1
        by_name: dict[str, dict[str, ModelVersion]] = {}
        for version in copy.versions:
            by_name.setdefault(version.model, {})[version.version] = version
        self._models = {name: Model(name, versions, _champion(versions)) for name, versions in by_name.items()}

    def _keep(self, copy: CatalogCopy) -> None:
        if copy == self._copy:
            return
        self._replace(copy)
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(msgspec.json.encode(copy))
            new.replace(self._path)
        except OSError as error:
            _LOG.warning("the catalog's file can't be written", error=str(error))


def _champion(versions: Mapping[str, ModelVersion]) -> ModelVersion:
    return next((version for version in versions.values() if version.champion), next(iter(versions.values())))
