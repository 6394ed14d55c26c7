"""Use cases of models: register, show, answer. Knows no HTTP."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TypeVar

import msgspec

from contender.contracts.columns import fault_of
from contender.contracts.inference_service import InputColumn, Manifest, ModelVersion, ScoredRows, VersionDetails
from contender.contracts.limits import NAME, NAME_WORDS
from contender.contracts.tasks import TaskName, task_named
from contender.contracts.values import Scalar
from services.inference_service.domain.bounds import check_categories, check_free_part, check_json, check_texts
from services.inference_service.errors import (
    ManifestError,
    UnknownModelError,
    UnknownVersionError,
    UnreadableVersionError,
    UnsafeModelError,
    UploadNotKeptError,
    VersionConflictError,
    VersionUnavailableError,
)
from services.inference_service.files import ModelFiles
from services.inference_service.runtime import Runtime, trial_of
from services.inference_service.settings import InferenceSettings
from services.inference_service.store import Listing, UnreadableVersion, VersionStore
from services.inference_service.trials import TrialResult, Trials
from shared.clock import Clock
from shared.errors import InvalidField, TooLarge, shortened

ShapeT = TypeVar("ShapeT")
CHAMPION = "champion"
_SERVED = ("task", "classes", "inputs", "score_output", "label_output")
"""What callers of a version rely on, beside its file."""


@dataclass(frozen=True, slots=True)
class Models:
    """Registered models and their answers."""

    store: VersionStore
    files: ModelFiles
    runtime: Runtime
    trials: Trials
    clock: Clock
    settings: InferenceSettings
    unreadable: list[UnreadableVersion] = field(default_factory=list)
    """The rows that the last reading of the whole registry could not read."""
    _known: dict[tuple[str, str], ModelVersion] = field(default_factory=dict)

    async def register(self, model: str, onnx: bytes, manifest: bytes, sample: bytes) -> tuple[ModelVersion, bool]:
        """Check a version, try it in a limited process, and keep it.

        Returns:
            The version, and whether it is new.

        Raises:
            TooLarge: the file or the manifest is larger than allowed.
            UnsafeModelError: the file breaks a rule for files that are run here.
            ManifestError, ParityError: the manifest does not fit the file, or its answers are not scikit-learn's.
            VersionConflictError: the file is registered with other inputs, classes or task.
            InvalidField: name, manifest or sample are malformed.
            Overloaded: too many uploads wait for their trials.
        """
        if NAME.fullmatch(model) is None:
            raise InvalidField.at("model", f"must be {NAME_WORDS}")
        if len(onnx) > self.settings.model_limit_bytes:
            raise TooLarge.at("onnx", f"is larger than {self.settings.model_limit_bytes} bytes")
        described, whole = _read_manifest(manifest, self.settings)
        version = (await asyncio.to_thread(hashlib.sha256, onnx)).hexdigest()
        registered = ModelVersion(
            model=model,
            version=version,
            task=described.task,
            classes=described.classes,
            inputs=described.inputs,
            registered_at=self.clock.now(),
            description=described.description,
            score_output=described.score_output,
            label_output=described.label_output,
            target_range=described.target_range,
            categories=described.categories,
        )
        result = await self.trials.run(trial_of(registered, described.tolerance, self.settings), onnx, sample)
        parity = {"rows": result.finding.rows, "worst": result.finding.worst}
        details = VersionDetails.of(registered, {**whole, "server_parity": parity})
        _check_document(details)
        kept, is_new = await self._keep(registered, details, result)
        await asyncio.to_thread(self.files.write_upload, model, version, onnx, sample)
        return kept, is_new

    async def _keep(
        self, registered: ModelVersion, details: VersionDetails, result: TrialResult
    ) -> tuple[ModelVersion, bool]:
        """Write the file, open the version, and then write the row that makes it known."""
        model, version = registered.model, registered.version
        known = await self._registered(model, version)
        _check_same(known or registered, registered)
        await asyncio.to_thread(self.files.write, version, result.checked)
        await asyncio.to_thread(self.files.write_record, model, version, result.finding.record)
        if known is not None:  # its trial may have found more than was known
            await self.runtime.forget(known)
        try:
            await self.runtime.open(registered)
        except VersionUnavailableError as error:
            raise UnsafeModelError.at("onnx", f"can't be served: {error.detail}") from error
        is_new = known is None and await self.store.add(details)
        kept = await self.version(model, version)
        if _differing(kept, registered):  # another registration was quicker, with another manifest
            await self.runtime.forget(registered)
        _check_same(kept, registered)
        return kept, is_new

    async def _registered(self, model: str, version: str) -> ModelVersion | None:
        listing = await self.store.versions(model)
        _refuse_unreadable(listing, version)
        return next((known for known in listing.versions if known.version == version), None)

    async def models(self) -> list[ModelVersion]:
        """Every version of every model that can be read; `unreadable` has the others."""
        listing = await self.store.models()
        self.unreadable[:] = listing.unreadable
        return listing.versions

    async def versions(self, model: str) -> list[ModelVersion]:
        """Versions of a model, oldest first.

        Raises:
            UnknownModelError: there is no such model.
            UnreadableVersionError: none of its versions can be read.
        """
        listing = await self.store.versions(model)
        if not listing.versions:
            _refuse_unreadable(listing)
            raise UnknownModelError(f"there is no model {model}")
        return listing.versions

    async def version(self, model: str, version: str) -> ModelVersion:
        """One version, or the champion.

        Raises:
            UnknownModelError, UnknownVersionError: there is no such version.
            UnreadableVersionError: it can't be read.
        """
        listing = await self.store.versions(model)
        for known in listing.versions:
            if known.version == version or (version == CHAMPION and known.champion):
                return known
        _refuse_unreadable(listing, "" if version == CHAMPION else version)
        if not listing.versions:
            raise UnknownModelError(f"there is no model {shortened(model)}")
        raise UnknownVersionError(f"model {model} has no version {shortened(version)}")

    async def named(self, model: str, version: str) -> ModelVersion:
        """One version by its own name, which no alias is; raises as `version` does."""
        known = await self.version(model, version)
        if known.version != version:
            raise UnknownVersionError(f"{version} is an alias: name the version itself")
        return known

    async def details(self, model: str, version: str) -> VersionDetails:
        """One version, or the champion, with its manifest; raises as `version` does."""
        known = await self.version(model, version)
        return VersionDetails.of(known, await self.store.manifest(model, known.version))

    async def file(self, model: str, version: str) -> bytes:
        """The ONNX file of a version, or of the champion, as it was uploaded.

        Raises:
            UploadNotKeptError: it was registered before uploads were kept. The rest as `version`.
        """
        known = await self.version(model, version)
        return _kept(known, await asyncio.to_thread(self.files.uploaded, known.version))

    async def sample(self, model: str, version: str) -> bytes:
        """The sample of a version's upload, or of the champion's, in JSON; raises as `file` does."""
        known = await self.version(model, version)
        return _kept(known, await asyncio.to_thread(self.files.sample, model, known.version))

    async def answer(self, model: str, version: str, inputs: Mapping[str, Sequence[Scalar]]) -> ScoredRows:
        """Scores and labels of rows by column; a row without a score has a fault.

        Raises:
            UnknownModelError, UnknownVersionError: there is no such version.
            TooLarge, InvalidField: the columns are not those of the version, or the rows too many.
            VersionUnavailableError, Overloaded: the version can't answer at the moment.
        """
        return await self.runtime.answer(await self._immutable(model, version), inputs)

    async def _immutable(self, model: str, version: str) -> ModelVersion:
        """The version, from memory after its first look-up; the champion may change, so it is looked up each time."""
        known = self._known.get((model, version))
        if known is None:
            known = await self.version(model, version)
            if version != CHAMPION:
                self._known[model, version] = known
        return known


def _read_manifest(content: bytes, settings: InferenceSettings) -> tuple[Manifest, dict[str, object]]:
    """The manifest's fields that the service reads, and the whole manifest."""
    if len(content) > settings.manifest_limit_bytes:
        raise TooLarge.at("manifest", f"is larger than {settings.manifest_limit_bytes} bytes")
    check_json(content, "manifest")
    manifest = _read(content, Manifest, "manifest")
    check_texts(manifest.inputs, manifest.classes, manifest.description)
    check_categories(manifest.categories)
    _check_manifest(manifest, settings)
    whole = _read(content, dict[str, object], "manifest")
    check_free_part(whole, Manifest.__struct_fields__)
    return manifest, whole


def _check_document(version: VersionDetails) -> None:
    """Refuse a manifest that the registry could not give back, before anything is kept."""
    if msgspec.json.decode(msgspec.json.encode(version), type=VersionDetails) != version:
        raise ManifestError.at(
            "manifest", "changes when it is stored and read back: write numbers and texts in their plain form"
        )


def _kept(version: ModelVersion, content: bytes | None) -> bytes:
    if content is None:
        raise UploadNotKeptError(
            f"the upload of model {version.model}, version {version.version[:12]}, was not kept: register it again"
        )
    return content


def _refuse_unreadable(listing: Listing, version: str = "") -> None:
    """Refuse if the version of that name can't be read; without a name, if any can't."""
    for row in listing.unreadable:
        if version in ("", row.version):
            raise UnreadableVersionError(f"the registry's row of {row.model} {row.version} can't be read: {row.reason}")


def _differing(kept: ModelVersion, registered: ModelVersion) -> list[str]:
    """The fields in which two versions of one file differ for their callers."""
    return [name for name in _SERVED if getattr(kept, name) != getattr(registered, name)]


def _check_same(kept: ModelVersion, registered: ModelVersion) -> None:
    if differing := _differing(kept, registered):
        raise VersionConflictError.at(
            "manifest",
            f"differs in {', '.join(differing)} from the one that {kept.version[:12]} was registered with: a version "
            "never changes. Register the file under another model name, or export it anew, by contender's own "
            "`register` or with other metadata, which makes a new version",
        )


def _read(content: bytes, shape: type[ShapeT], name: str) -> ShapeT:
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidField.at(name, f"can't be read: {error}") from error


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
    if not task_named(manifest.task).takes_classes(len(manifest.classes)):
        raise ManifestError.at(
            "manifest.classes", f"has {len(manifest.classes)} classes, which does not fit {manifest.task}"
        )
    if manifest.target_range is not None and (fault := _target_fault(manifest.task, *manifest.target_range)):
        raise ManifestError.at("manifest.target_range", fault)


def _target_fault(task: TaskName, low: float, high: float) -> str:
    if task_named(task).has_classes:
        return f"is for regressions: the targets of a {task} model are classes"
    if not (isfinite(low) and isfinite(high) and low <= high):
        return "must be two finite numbers, the lower one first"
    return ""


def _default_fault(column: InputColumn, text_limit: int) -> str:
    if column.default is not None:
        return fault_of(column, column.default, text_limit)
    if not column.required and column.dtype in ("integer", "boolean"):
        return f"is missing: the column is not required, and {column.dtype} has no null"
    return ""
