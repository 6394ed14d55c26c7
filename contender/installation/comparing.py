"""The plan of a file for an installation: models, experiments, definitions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from contender.client import Client
from contender.contracts.experiments import CHAMPION
from contender.installation.document import Contents, Definitions, ExperimentEntry, ModelEntry, Present, definitions_of
from contender.installation.experiments import experiment_step
from contender.installation.files import has_upload, read_upload
from contender.installation.plan import SHORT, Action, Phase, Plan, Step, Who, step_of
from contender.yaml_files import Document

Versions = Mapping[str, set[str]]


def plan_of(document: Document, present: Present, folder: Path | None = None) -> Plan:
    """What it takes to make the installation as a file has it; nothing is ever deleted.

    Args:
        document: the file.
        present: what the installation holds.
        folder: with the uploads of versions that are to be registered.

    Raises:
        ContenderError: it is no such file; the message names line and field.
    """
    contents = document.converted(Contents)
    steps = []
    models = [entry.name for entry in contents.models]
    for index, model in enumerate(contents.models):
        location = document.location(f".models[{index}]")
        steps.append(
            _with_faults(_model_step(model, present, folder, location), _repeated(models, model.name, location))
        )
    versions = {known.model: set(present.versions_of(known.model)) for known in present.versions}
    for model in contents.models:
        versions.setdefault(model.name, set()).update(model.versions, {model.champion})
    known = {revision.name: revision for revision in present.experiments}
    names = [entry.name for entry in contents.experiments]
    for index, entry in enumerate(contents.experiments):
        location = document.location(f".experiments[{index}]")
        step = experiment_step(entry, known.get(entry.name), location)
        faults = [*_version_faults(entry, versions, location), *_repeated(names, entry.name, location)]
        steps.append(_with_faults(step, faults))
    steps += _definition_steps(contents.features, definitions_of(present.definitions))
    return Plan(steps)


def _repeated(names: Sequence[str], name: str, location: str) -> list[str]:
    return [f"{location}: {name} stands more than once in the file"] if names.count(name) > 1 else []


def _with_faults(step: Step, faults: Sequence[str]) -> Step:
    return replace(step, faults=[*step.faults, *faults])


def _model_step(entry: ModelEntry, present: Present, folder: Path | None, location: str) -> Step:
    here = present.versions_of(entry.name)
    champion = present.champion(entry.name)
    # The first version of a model becomes its champion, so that one comes first.
    wanted = sorted({*entry.versions, entry.champion} - set(here), key=lambda name: (name != entry.champion, name))
    details = [f"version {version[:SHORT]}" for version in wanted]
    if champion != entry.champion:
        details.append(f"champion {(champion or 'none')[:SHORT]} -> {entry.champion[:SHORT]}")
    faults = [
        f"{location}: model {entry.name} has no version {version[:SHORT]} here"
        + (": give the folder of its files by --models" if folder is None else f", and {folder} has no files of it")
        for version in wanted
        if not has_upload(folder, entry.name, version)
    ]
    actions = [Action(Phase.REGISTER, partial(_register, folder, entry.name, version)) for version in wanted]
    if champion != entry.champion:
        actions.append(Action(Phase.PROMOTE, partial(_promote, entry.name, entry.champion)))
    return step_of(f"model {entry.name}", details, actions, faults, is_new=not here)


def _register(folder: Path | None, model: str, version: str, client: Client, who: Who) -> object:
    del who  # a version says itself where it is from
    return client.register_upload(model, read_upload(folder or Path(), model, version))


def _promote(model: str, version: str, client: Client, who: Who) -> object:
    return client.promote(model, version, reason=who.reason, changed_by=who.changed_by)


def _version_faults(entry: ExperimentEntry, versions: Versions, location: str) -> list[str]:
    if entry.status == "stopped":
        return []
    if entry.model not in versions:
        return [f"{location}: there is no model {entry.model}"]
    return [
        f"{location}: model {entry.model} has no version {variant.version[:SHORT]}, that of variant {variant.name}"
        for variant in entry.variants
        if variant.version not in (CHAMPION, *versions[entry.model])
    ]


def _definition_steps(wanted: Definitions, here: Definitions) -> Iterator[Step]:
    for kind, (noun, key) in _DEFINITIONS.items():
        present = {known.get(key): known for known in getattr(here, kind)}
        for definition in getattr(wanted, kind):
            name = definition.get(key)
            yield _definition_step(f"{noun} {name}", definition, present.get(name))


def _definition_step(subject: str, wanted: Mapping[str, Any], here: Mapping[str, Any] | None) -> Step:
    """The step of a definition: the service takes it from a module, so that a difference can only be told.

    A definition that is missing, or has another meaning, is a fault: models would be served other values.
    """
    if here is None:
        fault = f"{subject} is not defined here: {_OWN_MODULE}"
        return step_of(subject, ["not defined here"], (), [fault], is_new=True)
    differing = sorted(field for field in {*wanted, *here} if wanted.get(field) != here.get(field))
    details = [f"another {', '.join(differing)} here, from the service's own module"] if differing else []
    has_other_meaning = wanted.get("digest") != here.get("digest")
    return step_of(
        subject, details, (), [f"{subject} has another meaning here: {_OWN_MODULE}"] if has_other_meaning else ()
    )


_DEFINITIONS = {
    "views": ("view", "label"),
    "entities": ("entity", "name"),
    "sources": ("source", "name"),
    "feature_services": ("feature service", "name"),
}
"""What a definition of each kind is called, and the field that names it."""
_OWN_MODULE = "give the feature service the same definitions, then `contender features apply`"
