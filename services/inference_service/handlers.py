"""Use cases of models: register, promote, answer. Knows no HTTP."""

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from services.inference_service.domain.columns import check_columns
from services.inference_service.domain.safety import parse_model
from services.inference_service.errors import (
    ManifestError,
    UnknownModelError,
    UnknownVersionError,
    VersionConflictError,
)
from services.inference_service.runtime import Sessions
from services.inference_service.session import Answers, Session
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import ModelFiles, VersionStore
from services.inference_service.trial import Sample, Trial, try_model
from shared.clock import Clock
from shared.columns import fault_of
from shared.events import InputColumn, ModelVersion, Scalar, Task
from shared.problems import TooLarge, Unprocessable
from shared.topics import LARGEST_RECORD_BYTES, MODELS

ShapeT = TypeVar("ShapeT")
CHAMPION = "champion"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SERVED = ("task", "classes", "inputs", "entities", "score_output", "label_output")
_LARGE_BATCH = 64
"""From this many rows on, a run takes long enough to be worth a thread of its own."""


class Manifest(msgspec.Struct, frozen=True):
    """The part of a manifest that the service itself reads; the rest is kept as it came."""

    task: Task
    inputs: list[InputColumn]
    classes: list[Scalar] = []
    entities: dict[str, list[str]] = {}
    description: str = ""
    tolerance: float = 1e-5
    tolerance_reason: str = ""
    score_output: str = ""
    label_output: str = ""


class Announce(Protocol):
    """Tells others that a version is there or has become champion."""

    async def __call__(self, version: ModelVersion) -> None:
        """Return once the announcement is durable."""
        ...


@dataclass(frozen=True, slots=True)
class Models:
    """Registered models and their answers."""

    store: VersionStore
    files: ModelFiles
    sessions: Sessions
    announce: Announce
    clock: Clock
    settings: InferenceSettings
    _known: dict[tuple[str, str], ModelVersion] = field(default_factory=dict)
    _trying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One trial at a time: each may take as much memory as the settings allow."""

    async def register(self, model: str, onnx: bytes, manifest: bytes, sample: bytes) -> tuple[ModelVersion, bool]:
        """Check a version, try it in a limited process, and keep it; and whether it is new.

        Raises:
            TooLarge: the file is larger than allowed.
            UnsafeModelError: the file is not one that is run here.
            ManifestError: the manifest does not fit the file.
            ParityError: the answers to the sample differ from scikit-learn's.
            VersionConflictError: the file is registered with other inputs, classes, task or entities.
            Unprocessable: name, manifest or sample are malformed.
        """
        if _NAME.fullmatch(model) is None:
            raise Unprocessable.at("model", "is not a name: letters, digits, dot, dash and underscore, at most 100")
        if len(onnx) > self.settings.model_limit_bytes:
            raise TooLarge.at("onnx", f"is larger than {self.settings.model_limit_bytes} bytes")
        described = _read(manifest, Manifest, "manifest")
        _check_manifest(described, self.settings)
        rows = _read(sample, Sample, "sample")
        version = hashlib.sha256(onnx).hexdigest()
        await asyncio.to_thread(parse_model, onnx, node_limit=self.settings.node_limit)
        async with self._trying:
            worst = await try_model(self._trial(onnx, described, rows), self.settings)
        whole = _read(manifest, dict[str, object], "manifest")
        registered = ModelVersion(
            model=model,
            version=version,
            task=described.task,
            classes=described.classes,
            inputs=described.inputs,
            entities=described.entities,
            registered_at=self.clock.now(),
            description=described.description,
            score_output=described.score_output,
            label_output=described.label_output,
            manifest={**whole, "server_parity": {"rows": len(rows.scores), "worst": worst}},
        )
        if (size := len(MODELS.encode(registered))) > LARGEST_RECORD_BYTES:  # before anything is kept
            raise TooLarge.at("manifest", f"makes a record of {size} bytes; Kafka takes {LARGEST_RECORD_BYTES}")
        self.files.write(version, onnx)
        added = await self.store.add(registered)
        kept = await self.version(model, version)
        if _served(kept) != _served(registered):
            raise VersionConflictError.at(
                "manifest",
                f"differs in {_difference(kept, registered)} from the one that {version[:12]} was registered with: a "
                "version never changes. Register the file under another model name, or export it anew, by "
                "contender's own `register` or with other metadata, which makes a new version",
            )
        await self.announce(kept)
        return kept, added

    async def promote(self, model: str, version: str) -> ModelVersion:
        """Make a version the champion.

        Raises:
            UnknownModelError, UnknownVersionError: there is no such version.
        """
        await self.versions(model)
        if not await self.store.promote(model, version):
            raise UnknownVersionError(f"model {model} has no version {version}")
        changed = await self.version(model, version)
        # All of them: who tries again after a failure half-way can't know which one was champion before.
        for other in await self.versions(model):
            if other.version != version:
                await self.announce(other)
        await self.announce(changed)
        return changed

    async def models(self) -> list[ModelVersion]:
        """Every version of every model."""
        return await self.store.models()

    async def versions(self, model: str) -> list[ModelVersion]:
        """Versions of a model, oldest first.

        Raises:
            UnknownModelError: there is no such model.
        """
        versions = await self.store.versions(model)
        if not versions:
            raise UnknownModelError(f"there is no model {model}")
        return versions

    async def version(self, model: str, version: str) -> ModelVersion:
        """One version, or the champion.

        Raises:
            UnknownModelError, UnknownVersionError: there is no such version.
        """
        for known in await self.versions(model):
            if known.version == version or (version == CHAMPION and known.champion):
                return known
        raise UnknownVersionError(f"model {model} has no version {version}")

    async def answer(self, model: str, version: str, inputs: Mapping[str, Sequence[Scalar]]) -> Answers:
        """Scores and labels of rows given by column.

        Raises:
            UnknownModelError, UnknownVersionError: there is no such version.
            TooLarge, Unprocessable: the rows are not what the version takes.
        """
        found = await self._immutable(model, version)
        limits = self.settings
        arrays = check_columns(found.inputs, inputs, row_limit=limits.row_limit, text_limit=limits.text_limit)
        session = self.sessions.get(found.version, lambda: self._open(found))
        if len(next(iter(arrays.values()))) < _LARGE_BATCH:
            return session.answer(arrays)
        return await asyncio.to_thread(session.answer, arrays)

    async def _immutable(self, model: str, version: str) -> ModelVersion:
        """The version from memory where its name says all; the champion is looked up each time."""
        found = self._known.get((model, version))
        if found is None:
            found = await self.version(model, version)
            if version != CHAMPION:
                self._known[model, version] = found
        return found

    def _open(self, version: ModelVersion) -> Session:
        return Session(
            self.files.read(version.version),
            version.inputs,
            version.task,
            version.classes,
            score_output=version.score_output,
            label_output=version.label_output,
        )

    def _trial(self, onnx: bytes, manifest: Manifest, sample: Sample) -> Trial:
        return Trial(
            onnx,
            manifest.inputs,
            manifest.task,
            manifest.classes,
            sample,
            manifest.tolerance,
            self.settings.row_limit,
            self.settings.text_limit,
            self.settings.node_limit,
            manifest.score_output,
            manifest.label_output,
        )


def _read(content: bytes, shape: type[ShapeT], name: str) -> ShapeT:
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unprocessable.at(name, f"is not what was expected: {error}") from error


def _served(version: ModelVersion) -> tuple[object, ...]:
    """What callers of a version rely on, beside its file."""
    return tuple(getattr(version, name) for name in _SERVED)


def _difference(kept: ModelVersion, registered: ModelVersion) -> str:
    return ", ".join(name for name in _SERVED if getattr(kept, name) != getattr(registered, name))


def _check_manifest(manifest: Manifest, settings: InferenceSettings) -> None:
    if not 0 <= manifest.tolerance <= settings.tolerance_limit and not manifest.tolerance_reason.strip():
        raise ManifestError.at(
            "manifest.tolerance",
            f"is {manifest.tolerance:g}, and {settings.tolerance_limit:g} is the most without a reason: say in "
            "manifest.tolerance_reason why the scores may differ so much",
        )
    names = [column.name for column in manifest.inputs]
    if not names:
        raise ManifestError.at("manifest.inputs", "is empty")
    if len(set(names)) < len(names):
        raise ManifestError.at("manifest.inputs", "names a column twice")
    for column in manifest.inputs:
        if fault := _default_fault(column, settings.text_limit):
            raise ManifestError.at(f"manifest.inputs.{column.name}.default", fault)
    if len(set(manifest.classes)) < len(manifest.classes):
        raise ManifestError.at("manifest.classes", "names a class twice")
    wanted = {"binary": len(manifest.classes) == 2, "multiclass": len(manifest.classes) > 2}  # noqa: PLR2004
    if not wanted.get(manifest.task, not manifest.classes):
        raise ManifestError.at("manifest.classes", f"has {len(manifest.classes)}, which does not fit {manifest.task}")


def _default_fault(column: InputColumn, text_limit: int) -> str:
    if column.default is not None:
        return fault_of(column, column.default, text_limit)
    if not column.required and column.dtype in ("integer", "boolean"):
        return f"is missing: the column is not required, and {column.dtype} has no null"
    return ""
