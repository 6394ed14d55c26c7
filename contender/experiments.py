"""Declares an experiment of two versions, compares it with those of the router, and explains a conflict."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from contender.contracts.experiments import ExperimentRevision, Guardrail, NewExperiment
from contender.contracts.inference_service import ModelVersion
from contender.contracts.metrics import metrics_of
from contender.contracts.tasks import task_named

_VERSION_CHARACTERS = 12


def declaration(
    name: str | None, model: str, versions: Mapping[str, ModelVersion], share: float, metric: str | None
) -> dict[str, Any]:
    """The body of `POST /v1/experiments` for two versions, by their roles: champion and challenger.

    Args:
        name: default: the model's with the time.
        model: whose units are split.
        versions: by role.
        share: the challenger's share of the units.
        metric: default: the first metric of the challenger's task.
    """
    shares = {"champion": 1 - share, "challenger": share}
    return {
        "name": name or f"{model}-{time.strftime('%Y%m%d-%H%M%S')}",
        "model": model,
        "variants": [
            {"name": role, "version": version.version, "weight": shares[role]} for role, version in versions.items()
        ],
        "champion": "champion",
        "metric": metric or metrics_of(task_named(versions["challenger"].task))[0].name,
    }


def differences(revision: ExperimentRevision, body: Mapping[str, Any]) -> list[str]:
    """How an experiment differs from a declaration, each such as `alpha is 0.05 there and 0.1 here`.

    Args:
        revision: the experiment as it stands.
        body: as `POST /v1/experiments` takes it; a missing field has its default, or what the router fills in.
    """
    try:
        declared = msgspec.convert(body, NewExperiment)
    except msgspec.ValidationError as error:
        return [f"the declaration can't be read: {error}"]
    known = {variant.name: variant for variant in revision.variants}
    variants = {variant.name: variant for variant in declared.variants}
    pairs: dict[str, tuple[object, object]] = {"variants": (sorted(known), sorted(variants))}
    for name in known.keys() & variants.keys():
        pairs[f"{name}'s version"] = _short(known[name].version), _short(variants[name].version)
        pairs[f"{name}'s share"] = known[name].weight, variants[name].weight
    filled_in = {"champion": next(iter(variants), None), "label_range": revision.label_range}
    for field in NewExperiment.__struct_fields__:
        if field not in ("name", "model", "variants"):
            here = getattr(declared, field)
            pairs[field] = getattr(revision, field), filled_in.get(field) if here is None else here
    return [
        f"{name} is {_shown(there)} there and {_shown(here)} here"
        for name, (there, here) in sorted(pairs.items())
        if there != here
    ]


def conflict(revision: ExperimentRevision, differing: list[str]) -> str:
    """Why another experiment can't run beside this one, and how to stop it."""
    return (
        f"experiment {revision.name} runs on model {revision.model} with another configuration "
        f"({'; '.join(differing)}), and a model has one running experiment: continue with that configuration, or stop "
        f"it with client.change({revision.name!r}, 'stop'), which is POST /v1/experiments/{revision.name}/stop"
    )


def _shown(value: object) -> object:
    """A field's value for people."""
    if not isinstance(value, list):
        return value
    items = (_guardrail_words(item) if isinstance(item, Guardrail) else str(item) for item in value)
    return ", ".join(items) or "none"


def _guardrail_words(guardrail: Guardrail) -> str:
    place = f" in each {guardrail.segment}" if guardrail.segment else ""
    return f"{guardrail.metric} by {guardrail.margin}{place}"


def _short(version: str) -> str:
    return version[:_VERSION_CHARACTERS]
