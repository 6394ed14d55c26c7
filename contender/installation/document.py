"""The file: models with their champions, experiments as they are declared, and feature definitions."""

from typing import Any, Literal

import msgspec

from contender.client import Client
from contender.contracts.experiments import ExperimentRevision, NewExperiment, VariantAllocation
from contender.contracts.feature_service import DefinitionsDocument
from contender.contracts.inference_service import ModelVersion
from contender.yaml_files import Document

FORMAT = 1
_HEAD = "# Written by `contender export`; `contender apply FILE` gives another installation the same.\n"
_OF_A_CALL = frozenset(("revision", "changed_by", "reason"))
"""Fields of a declaration that belong to one call of it."""
_LOCAL = frozenset(("complete", "newest", "version", "history"))
"""Fields of definitions that differ between installations of the same definitions."""

Status = Literal["draft", "running", "paused", "stopped"]


class ExperimentEntry(NewExperiment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as it is declared, with the state in which it is to be.

    A verdict belongs to the installation that has found it: a decided experiment is `running` here.
    """

    status: Status = "draft"


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model: the version that is its champion, and all its versions."""

    name: str
    champion: str
    versions: list[str] = []


class Definitions(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Feature definitions as the feature service describes them, a view by its label and digest."""

    views: list[dict[str, Any]] = []
    entities: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    feature_services: list[dict[str, Any]] = []


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file; `contender` is the number of its format."""

    contender: Literal[1]
    models: list[ModelEntry] = []
    experiments: list[ExperimentEntry] = []
    features: Definitions = Definitions()


class Present(msgspec.Struct, frozen=True):
    """What an installation holds at the moment."""

    versions: list[ModelVersion]
    experiments: list[ExperimentRevision]
    definitions: DefinitionsDocument

    @classmethod
    def of(cls, client: Client) -> "Present":
        """What the services answer."""
        return cls(client.versions(), client.experiments(), client.definitions())

    def champion(self, model: str) -> str | None:
        """The version that answers for a model."""
        return next((known.version for known in self.versions if known.model == model and known.champion), None)

    def versions_of(self, model: str) -> list[str]:
        """The versions of a model, by name."""
        return sorted(known.version for known in self.versions if known.model == model)


def exported(present: Present) -> str:
    """The file of an installation: the same for each installation that holds the same.

    Stopped experiments are left out: they assign no unit, and their results stay where they are.
    """
    models = sorted({known.model for known in present.versions})
    whole = {
        "contender": FORMAT,
        "models": [
            {"name": model, "champion": present.champion(model), "versions": present.versions_of(model)}
            for model in models
        ],
        "experiments": [_plain(entry_of(known)) for known in present.experiments if known.status != "stopped"],
        "features": msgspec.to_builtins(definitions_of(present.definitions)),
    }
    return _HEAD + Document.dump(whole)


def entry_of(revision: ExperimentRevision) -> ExperimentEntry:
    """An experiment as a file has it."""
    fields = [name for name in NewExperiment.__struct_fields__ if name not in _OF_A_CALL]
    declared = {name: getattr(revision, name) for name in fields}
    declared["variants"] = [VariantAllocation(each.name, each.version, each.weight) for each in revision.variants]
    status = "running" if revision.status == "decided" else revision.status
    if revision.canary is not None:  # its schedule sets the coverage, and equal weights
        share = 1 / len(revision.variants)
        declared |= {"coverage": 1.0, "variants": [_with_weight(each, share) for each in declared["variants"]]}
    return ExperimentEntry(**declared, status=status)


def definitions_of(document: DefinitionsDocument) -> Definitions:
    """Definitions without what is particular to one installation."""
    return Definitions(
        views=[_portable(view) for view in document.views],
        entities=[_portable(entity) for entity in document.entities],
        sources=[_portable(source) for source in document.sources],
        feature_services=[_portable(service) for service in document.feature_services],
    )


def _portable(described: msgspec.Struct) -> dict[str, Any]:
    fields = msgspec.to_builtins(described).items()
    whole: dict[str, Any] = _compact({name: value for name, value in fields if name not in _LOCAL})
    return whole


def _compact(value: Any) -> Any:
    """The value without fields that say nothing; a default of 0 says something."""
    if isinstance(value, dict):
        return {name: _compact(part) for name, part in value.items() if part not in (None, "", [], {})}
    return [_compact(part) for part in value] if isinstance(value, list) else value


def _with_weight(variant: VariantAllocation, weight: float) -> VariantAllocation:
    return msgspec.structs.replace(variant, weight=weight)


def _plain(entry: ExperimentEntry) -> dict[str, Any]:
    """The entry's fields that differ from their defaults; what names it and its state come first."""
    whole: dict[str, Any] = msgspec.to_builtins(entry)
    usual = {field.name: _default(field) for field in msgspec.structs.fields(ExperimentEntry)}
    first = ("name", "model", "status", "seed", "champion", "variants", "metric", "window_s")
    rest = [name for name in whole if name not in first and whole[name] != usual[name]]
    shown: dict[str, Any] = {name: whole[name] for name in (*first, *rest)}
    shown["variants"] = [{name: each[name] for name in ("name", "version", "weight")} for each in whole["variants"]]
    return shown


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
